"""SFTN: its branches in loops over their weights, and the layers that a branch keeps."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines._branches import Branch, branch_stages, keep_used_layers
from baselines.sftn import SFTN
from skd.models import FeatureNetwork, Outputs, build_model
from skd.models.network import dry_pass
from skd.randomness import seeded
from skd.terms import Partner, TermContext, UnfitError
from tests.baselines.test_fitnet import regressed
from tests.builders.formulas import kl, nll
from tests.builders.losses import make_batch, make_outputs, slopes

CLASSES = 5
EQUAL, HALF, TWICE = (1, 1, 0, False), (3, 2, 1, False), (4, 2, 1, True)  # as in test_fitnet
# Maps of the teacher and of the student: the stem's, and those of three stages.
TEACHER = [(2, 4, 4), (3, 4, 4), (4, 2, 2), (5, 2, 2)]
STUDENT = [(2, 4, 4), (3, 2, 2), (2, 4, 4), (4, 4, 4)]
TRANSFORMS = {1: HALF, 2: TWICE}


class Tiny(FeatureNetwork):
    """Stages of a 1x1 convolution and a ReLU, at one size; the classifier reads their mean."""

    def __init__(self, widths: tuple[int, ...] = (2, 3, 2, 4)) -> None:
        super().__init__()
        pairs = zip((3, *widths), widths, strict=False)
        self.convs = nn.ModuleList(nn.Conv2d(ins, outs, 1, bias=False) for ins, outs in pairs)
        self.fc = nn.Linear(widths[-1], CLASSES)

    def forward_features(self, images: Tensor) -> Outputs:
        return self.forward_from(0, self.convs[0](images).relu())

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        stages = [maps]
        for conv in [*self.convs][stage + 1 :]:
            stages.append(conv(stages[-1]).relu())
        pooled = stages[-1].mean(dim=(2, 3))
        return Outputs(self.fc(pooled), tuple(stages), (), pooled)


def partner_of(maps=STUDENT, build=Tiny) -> Partner:
    return Partner("tiny", make_outputs(9, 1, maps, CLASSES), build)


def make_sftn(teacher: Outputs, partner: Partner, **settings) -> SFTN:
    context = TermContext(CLASSES, torch.arange(10) % CLASSES, 0, teacher, None, partner=partner)
    with seeded(0, "sftn"):
        return SFTN(SFTN.Settings(**settings), context).double()


def branch_logits(maps, stage, parameters):
    """The transform, the student's later convolutions with ReLU, the mean, the classifier."""
    (weight, scale, shift), (*convs, fc, bias) = parameters[:3], parameters[3:]
    is_transposed = TRANSFORMS[stage][3]
    zeros = np.zeros(weight.shape[is_transposed])  # the convolution has no bias
    x = regressed(maps, (weight, zeros, scale, shift), TRANSFORMS[stage])
    for conv in convs:
        x = np.maximum(np.einsum("oc,bchw->bohw", conv[:, :, 0, 0], x), 0)
    return x.mean(axis=(2, 3)) @ fc.T + bias


def reference(logits, maps, parameters, target, weights=(3.0, 1.0), temperature=1.0):
    students = [
        branch_logits(maps[stage], stage, parameters[index]).tolist()
        for index, stage in enumerate(TRANSFORMS)
    ]
    divergences = [kl(logits.tolist(), s, temperature) * temperature**2 for s in students]
    entropies = [nll(s, target) for s in students]
    return weights[0] * np.mean(divergences) + weights[1] * np.mean(entropies)


def moved_off_start(term: SFTN) -> None:
    """Move scales, shifts and biases away from 1 and 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in term.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()


def test_loss_and_all_gradients_follow_the_formula():
    teacher = make_outputs(1, 3, TEACHER, CLASSES)
    term = make_sftn(
        teacher, partner_of(), divergence=2.0, branch_cross_entropy=0.5, temperature=2.0
    )
    moved_off_start(term)
    batch = make_batch(teacher, None)
    loss = term(batch)
    loss.backward()

    target = batch.target.tolist()
    arrays = {"logits": teacher.logits.detach().numpy()}
    arrays |= {f"maps {i}": teacher.stages[i].detach().numpy() for i in TRANSFORMS}
    leaves = {"logits": teacher.logits} | {f"maps {i}": teacher.stages[i] for i in TRANSFORMS}
    for index, branch in enumerate(term.branches):
        for number, parameter in enumerate(branch.parameters()):
            arrays[f"{index} {number}"] = parameter.detach().numpy()
            leaves[f"{index} {number}"] = parameter
    counts = [len([*branch.parameters()]) for branch in term.branches]
    assert counts == [3 + 2 + 2, 3 + 1 + 2]  # the transform, later convolutions, the classifier

    def value_with(**changed):
        now = arrays | changed
        return reference(
            now["logits"],
            {stage: now[f"maps {stage}"] for stage in TRANSFORMS},
            [[now[f"{i} {n}"] for n in range(count)] for i, count in enumerate(counts)],
            target,
            (2.0, 0.5),
            2.0,
        )

    assert loss.item() == pytest.approx(value_with(), rel=1e-11)
    for name, array in arrays.items():
        expected = slopes(lambda x, name=name: value_with(**{name: x}), array)
        np.testing.assert_allclose(leaves[name].grad, expected, rtol=1e-5, atol=1e-8)
    # Neither the stem's nor the last stage's map has a branch.
    assert [maps.grad is None for maps in teacher.stages] == [True, False, False, True]


def test_mixed_images_have_two_classes_by_their_shares():
    teacher = make_outputs(1, 3, TEACHER, CLASSES)
    term, batch = make_sftn(teacher, partner_of(), divergence=0), make_batch(teacher, None)
    second, mix = torch.tensor([4, 4, 0]), torch.tensor([0.25, 0.75, 0.4]).double()
    mixed = replace(batch, second_target=second, mix=mix)
    losses, accuracies = [], []
    for branch in term.branches:
        parameters = [parameter.detach().numpy() for parameter in branch.parameters()]
        maps = teacher.stages[branch.stage].detach().numpy()
        rows = branch_logits(maps, branch.stage, parameters)
        shares = zip(rows.tolist(), batch.target, second, mix.tolist(), strict=True)
        losses += [m * nll([row], [y]) + (1 - m) * nll([row], [z]) for row, y, z, m in shares]
        accuracies.append(100 * np.mean(rows.argmax(axis=1) == [4, 1, 0]))
    assert term(mixed).item() == pytest.approx(np.mean(losses), rel=1e-11)
    assert [value.item() for value in term.diagnostics(mixed).values()] == pytest.approx(accuracies)


def test_default_weights_are_those_of_the_paper():
    chosen = SFTN.Settings()
    assert (chosen.divergence, chosen.branch_cross_entropy, chosen.temperature) == (3, 1, 1)
    assert (chosen.weight, chosen.cross_entropy) == (1, 1)
    assert not chosen.detach_maps
    assert not chosen.detach_logits
    assert SFTN.needs == frozenset()


@pytest.mark.parametrize("setting", ["detach_maps", "detach_logits"])
def test_detaching_stops_one_gradient_and_changes_no_value(setting):
    values = []
    for chosen in ({}, {setting: True}):
        teacher = make_outputs(1, 3, TEACHER, CLASSES)
        term = make_sftn(teacher, partner_of(), **chosen)
        loss = term(make_batch(teacher, None))
        loss.backward()
        values.append(loss.item())
    assert values[0] == values[1]
    assert (teacher.stages[1].grad is None) == (setting == "detach_maps")
    assert (teacher.logits.grad is None) == (setting == "detach_logits")
    assert all(parameter.grad is not None for parameter in term.parameters())


def test_diagnostics_are_the_branches_accuracies():
    teacher = make_outputs(1, 3, TEACHER, CLASSES)
    term, batch = make_sftn(teacher, partner_of()), make_batch(teacher, None)
    term(batch)
    shown = term.diagnostics(batch)
    assert list(shown) == ["branch 1 top-1", "branch 2 top-1"]
    for stage, value in zip(TRANSFORMS, shown.values(), strict=True):
        parameters = [p.detach().numpy() for p in term.branches[stage - 1].parameters()]
        logits = branch_logits(teacher.stages[stage].detach().numpy(), stage, parameters)
        hits = logits.argmax(axis=1) == batch.target.numpy()
        assert value.item() == pytest.approx(100 * hits.mean())


FAMILIES = ["resnet8", "wrn_16_1", "vgg8", "ShuffleV1", "ShuffleV2", "MobileNetV2", "ResNet50"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_branch_keeps_exactly_the_layers_that_it_uses(name):
    with seeded(0, name):
        network = build_model(name, 10)
    outputs = dry_pass(network, torch.rand(2, 3, 16, 16))
    for stage in range(1, len(outputs.stages)):
        branch = copy.deepcopy(network).eval()
        keep_used_layers(branch, stage, torch.zeros(1, *outputs.stages[stage].shape[1:]))
        whole = network.eval().forward_from(stage, outputs.stages[stage])
        kept = branch.forward_from(stage, outputs.stages[stage])
        assert torch.equal(whole.logits, kept.logits)
        kept.logits.square().sum().backward()
        assert all(parameter.grad is not None for parameter in branch.parameters())
        network.zero_grad()
        whole.logits.square().sum().backward()
        used = {n for n, p in network.named_parameters() if p.grad is not None}
        assert {n for n, _ in branch.named_parameters()} == used
        assert len(used) < len([*network.parameters()])
        # Statistics of removed BatchNorm layers are gone, too.
        norms = [m for m in branch.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(norm.weight.grad is not None for norm in norms)


def test_branches_start_from_different_weights_that_the_seed_decides():
    teacher = make_outputs(1, 3, TEACHER, CLASSES)
    first, second = (make_sftn(teacher, partner_of()) for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(*(branch.student.fc.weight for branch in first.branches))


def test_a_parameter_outside_all_layers_is_kept_only_if_used():
    class WithScales(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.stem_scale, self.last_scale = (
                nn.Parameter(torch.ones(1)),
                nn.Parameter(torch.ones(1)),
            )

        def forward_from(self, stage: int, maps: Tensor) -> Outputs:
            scaled = maps * self.stem_scale if stage == 0 else maps
            outputs = super().forward_from(stage, scaled)
            return Outputs(outputs.logits * self.last_scale, outputs.stages, (), outputs.pooled)

    network = WithScales()
    keep_used_layers(network, 2, torch.zeros(1, 2, 4, 4))
    assert [name for name, _ in network.named_parameters()] == [
        "last_scale",
        "convs.3.weight",
        "fc.weight",
        "fc.bias",
    ]


class WithoutForwardFrom(FeatureNetwork):
    def forward_features(self, images: Tensor) -> Outputs:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("teacher", "student", "build", "message"),
    [
        (TEACHER, STUDENT[:3], Tiny, "the teacher has 3 and the partner tiny has 2"),
        (TEACHER[:2], STUDENT[:2], Tiny, "have none"),
        (
            [(2, 8, 8), (2, 8, 8), (2, 4, 4), (2, 4, 4)],
            [(2, 8, 8), (2, 2, 2), (2, 2, 2), (2, 2, 2)],
            Tiny,
            "after stage 1 is 8x8 and the partner's 2x2; sizes must be equal, or differ by",
        ),
        (
            [(2, 8, 8), (2, 2, 2), (2, 2, 2), (2, 2, 2)],
            [(2, 8, 8), (3, 2, 2), (2, 8, 8), (4, 4, 4)],
            Tiny,
            "after stage 2 is 2x2 and the partner's 8x8",
        ),
        (TEACHER, STUDENT, WithoutForwardFrom, r"has no forward_from\(stage, maps\)"),
    ],
)
def test_networks_that_cannot_be_joined_are_refused(teacher, student, build, message):
    with pytest.raises(UnfitError, match=message):
        make_sftn(make_outputs(1, 1, teacher), partner_of(student, build))


def test_a_teacher_without_a_partner_is_refused():
    with pytest.raises(UnfitError, match="needs a partner"):
        make_sftn(make_outputs(1, 1, TEACHER), None)


def test_the_transform_may_halve_an_odd_size():
    partner = partner_of([(2, 7, 7), (3, 4, 4), (2, 4, 4)])
    branch = Branch(partner, 1, torch.zeros(1, 5, 7, 7))
    assert branch.transform(torch.zeros(2, 5, 7, 7)).shape == (2, 3, 4, 4)
    assert branch_stages(partner.outputs, partner) == range(1, 2)
