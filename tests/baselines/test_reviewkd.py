"""ReviewKD against loops in numpy; its shapes on the field's pairs of networks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.reviewkd import ABF, ReviewKD, hcl_loss
from skd.models import build_model
from skd.models.network import Outputs
from skd.terms import UnfitError
from tests.builders.losses import draw, make_batch, make_outputs, make_term

STUDENT_MAPS = ((2, 9, 9), (3, 6, 5), (2, 4, 3), (5, 3, 3))  # channels, height, width
TEACHER_MAPS = ((4, 9, 9), (2, 7, 6), (3, 4, 3), (2, 2, 2))
CONVOLUTIONS = ("narrow", "output")  # each with its BatchNorm


def windows(length: int, count: int) -> list[slice]:
    return [slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def hcl_of_pair(gap: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss of one pair of maps, and its derivative by the student's."""
    height, width = gap.shape[2:]
    value, slope, norm, weight = (gap**2).mean(), 2 * gap / gap.size, 1.0, 1.0
    for size in (4, 2, 1):
        if size >= min(height, width):
            continue
        weight /= 2
        norm += weight
        count = gap.shape[0] * gap.shape[1] * size * size
        for rows in windows(height, size):
            for columns in windows(width, size):
                window = gap[:, :, rows, columns]
                mean = window.mean(axis=(2, 3), keepdims=True)
                value += weight * (mean**2).sum() / count
                places = window.shape[2] * window.shape[3]
                slope[:, :, rows, columns] += weight * 2 * mean / count / places
    return value / norm, slope / norm


def normalised(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """BatchNorm by the batch's statistics."""
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    unit = (x - mean) / np.sqrt(variance + 1e-5)
    return scale[:, None, None] * unit + shift[:, None, None]


def resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate to the nearest place at the upper left."""
    rows, columns = (np.arange(n) * old // n for n, old in zip(size, x.shape[2:], strict=True))
    return x[:, :, rows][:, :, :, columns]


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    reach = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    height, width = x.shape[2:]
    return sum(
        np.einsum("oc,bchw->bohw", weight[:, :, i, j], padded[:, :, i : i + height, j : j + width])
        for i in range(weight.shape[2])
        for j in range(weight.shape[3])
    )


def reference(term: ReviewKD, student: list[np.ndarray], teacher: list[np.ndarray]) -> float:
    """The loss of the maps from the first stage to the pooled feature (sections 3.2 to 3.4)."""
    value, deeper = 0.0, None
    for fusion, own, goal in reversed(list(zip(term.fusions, student, teacher, strict=True))):
        weights = {name: value.detach().numpy() for name, value in fusion.named_parameters()}
        norms = [[weights[f"{name}.1.{x}"] for x in ("weight", "bias")] for name in CONVOLUTIONS]
        fused = normalised(convolved(own, weights["narrow.0.weight"]), *norms[0])
        if deeper is not None:
            deeper = resized(deeper, fused.shape[2:])
            scores = convolved(np.concatenate([fused, deeper], 1), weights["attention.weight"])
            shares = 1 / (1 + np.exp(-scores - weights["attention.bias"][:, None, None]))
            fused = shares[:, [0]] * fused + shares[:, [1]] * deeper
        deeper = resized(fused, goal.shape[2:])
        output = normalised(convolved(deeper, weights["output.0.weight"]), *norms[1])
        value += hcl_of_pair(output - goal)[0]
    return value


def handmade(**settings):
    student = make_outputs(1, 3, STUDENT_MAPS, width=4)
    teacher = make_outputs(2, 3, TEACHER_MAPS, width=6)
    term = make_term("reviewkd", student, teacher, **settings)
    for seed, parameter in enumerate(term.parameters()):  # BatchNorm's parameters too
        parameter.data += draw(seed, parameter.shape, 0.1)
    return term, student, teacher


def arrays(maps: tuple[Tensor, ...], pooled: Tensor) -> list[np.ndarray]:
    return [x.detach().numpy() for x in (*maps[1:], pooled[:, :, None, None])]


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (5, 9), (4, 4), (3, 6), (2, 2), (1, 1), (1, 3)])
def test_hcl_and_its_gradient_follow_the_definition(size):
    pairs = [
        [draw(seed, (3, 2, *size)) for seed in (0, 1)],
        [draw(s, (3, 4, 5, 5)) for s in (2, 3)],
    ]
    value, slopes = 0.0, []
    for student, teacher in pairs:
        one, slope = hcl_of_pair((student - teacher).numpy())
        value += one
        slopes.append(torch.from_numpy(slope))
    students, teachers = ([x.requires_grad_() for x in side] for side in zip(*pairs, strict=True))
    loss = hcl_loss(students, teachers)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(value, rel=1e-12)
    for student, teacher, slope in zip(students, teachers, slopes, strict=True):
        torch.testing.assert_close(student.grad, slope, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(teacher.grad, -slope, rtol=1e-10, atol=1e-14)


def test_hcl_of_a_constant_gap_is_its_square_at_any_size():
    # All averages have the same gap, and the weights are divided by their sum.
    for size in (1, 2, 3, 4, 8):
        maps = draw(4, (2, 3, size, size))
        assert hcl_loss([maps + 0.5], [maps]).item() == pytest.approx(0.25, rel=1e-12)


def test_hcl_of_half_precision_is_computed_in_float32():
    student, teacher = draw(5, (4, 3, 8, 8)).bfloat16(), draw(6, (4, 3, 8, 8)).bfloat16()
    loss = hcl_loss([student], [teacher])
    assert loss.dtype == torch.float32
    exact = hcl_loss([student.double()], [teacher.double()])
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_hcl_refuses_sides_that_differ():
    maps = draw(7, (2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"shapes differ: \(2, 3, 4, 4\) and \(2, 3, 4, 1\)"):
        hcl_loss([maps], [maps[..., :1]])
    with pytest.raises(ValueError, match="shorter"):
        hcl_loss([maps, maps], [maps])


@pytest.mark.parametrize("settings", [{}, {"mid_width": 2}, {"student_features": "preactivated"}])
def test_loss_follows_the_definition(settings):
    term, student, teacher = handmade(**settings)
    own = student.preactivations if "student_features" in settings else student.stages
    goal = arrays(teacher.preactivations, teacher.pooled)
    expected = reference(term, arrays(own, student.pooled), goal)
    assert term(make_batch(student, teacher)).item() == pytest.approx(expected, rel=1e-11)


def test_gradients_are_the_definitions_central_differences():
    term, student, teacher = handmade()
    term(make_batch(student, teacher)).backward()
    own = arrays(student.stages, student.pooled)
    goal = arrays(teacher.preactivations, teacher.pooled)
    # The arrays share memory with the tensors, so that a moved entry is seen by the reference.
    for leaf in (*student.stages[1:], student.pooled, *term.parameters()):
        flat, slope = leaf.detach().view(-1), leaf.grad.view(-1)
        for place in (0, flat.numel() // 2, flat.numel() - 1):
            middle = flat[place].item()
            flat[place] = middle + 1e-5
            above = reference(term, own, goal)
            flat[place] = middle - 1e-5
            below = reference(term, own, goal)
            flat[place] = middle
            assert slope[place].item() == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-8)


def test_gradients_reach_stages_pooled_feature_and_all_parameters_but_no_stem_nor_logits():
    term, student, teacher = handmade()
    term(make_batch(student, teacher)).backward()
    assert all(parameter.grad.any() for parameter in term.parameters())
    assert all(maps.grad.any() for maps in (*student.stages[1:], student.pooled))
    assert student.stages[0].grad is None
    assert student.logits.grad is None
    assert all(maps.grad is None for maps in student.preactivations[1:])
    assert all(maps.grad is None for maps in teacher.stages)


def test_a_stages_output_depends_on_the_stages_from_it_on():
    term, student, teacher = handmade()
    own, goal = [*student.stages[1:], student.pooled[:, :, None, None]], teacher.preactivations[1:]
    outputs = term.reviewed(own, [*goal, teacher.pooled[:, :, None, None]])
    for level, output in enumerate(outputs):
        slopes = torch.autograd.grad(
            output.sum(),
            [*student.stages[1:], student.pooled],
            retain_graph=True,
            allow_unused=True,
        )
        assert [slope is not None for slope in slopes] == [place >= level for place in range(4)]


def test_equal_seeds_give_equal_losses_and_gradients():
    losses, slopes = [], []
    for _ in range(2):
        term, student, teacher = handmade()
        loss = term(make_batch(student, teacher))
        losses.append(loss.item())
        slopes.append(torch.autograd.grad(loss, student.stages[1])[0])
    assert losses[0] == losses[1]
    assert torch.equal(*slopes)


def test_initial_weights_are_uniform_within_the_root_of_three_over_the_fan_in():
    torch.manual_seed(0)
    abf = ABF(30, 20, 10, fuses=True)
    for conv, fan_in in ((abf.narrow[0], 30), (abf.output[0], 180)):
        bound = (3 / fan_in) ** 0.5
        assert conv.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.06)
        assert conv.bias is None
    assert ABF(3, 2, 4, fuses=False).attention is None


def test_term_defaults_are_mdistillers():
    chosen = ReviewKD.Settings()
    assert (chosen.weight, chosen.cross_entropy, chosen.warmup_epochs) == (1.0, 1.0, 20)
    assert (chosen.student_features, chosen.mid_width) == ("activated", 512)
    assert ReviewKD.needs == {"teacher_features"}
    term, _, _ = handmade()
    assert [term.weight(epoch) for epoch in (1, 20, 21)] == pytest.approx([1 / 20, 1, 1])
    for bad in ({"mid_width": 0}, {"student_features": "raw"}, {"warmup_epochs": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ReviewKD.Settings(**bad)


def test_pairs_without_the_maps_it_reads_are_refused():
    student, teacher = (make_outputs(s, 2, STUDENT_MAPS) for s in (1, 2))
    bare, shorter = replace(student, preactivations=()), make_outputs(3, 2, TEACHER_MAPS[:3])
    with pytest.raises(UnfitError, match="the teacher's pre-activations; it defines none"):
        make_term("reviewkd", student, bare)
    with pytest.raises(UnfitError, match="student defines no pre-activations"):
        make_term("reviewkd", bare, teacher, student_features="preactivated")
    make_term("reviewkd", bare, teacher)
    with pytest.raises(UnfitError, match="student has 3 after the stem, the teacher 2"):
        make_term("reviewkd", student, shorter)


PAIRS = """
resnet56 resnet20, resnet110 resnet20, resnet110 resnet32, resnet32x4 resnet8x4,
wrn_40_2 wrn_16_2, wrn_40_2 wrn_40_1, vgg13 vgg8, vgg13 MobileNetV2, ResNet50 MobileNetV2,
ResNet50 vgg8, resnet32x4 ShuffleV1, resnet32x4 ShuffleV2, wrn_40_2 ShuffleV1
"""


@cache
def dry_pass(network: str) -> Outputs:
    with torch.device("meta"):
        return build_model(network).forward_features(torch.empty(2, 3, 32, 32))


@pytest.mark.parametrize("pair", [pair.strip() for pair in PAIRS.split(",")])
def test_the_fields_pairs_are_fit(pair):
    teacher, student = (dry_pass(network) for network in pair.split())
    with torch.device("meta"):
        term = make_term("reviewkd", student, teacher).float()
        own, goal = term._maps(make_batch(student, teacher))
        reviewed = term.reviewed(own, goal)
    assert [x.shape for x in reviewed] == [
        *(x.shape for x in teacher.preactivations[1:]),
        (*teacher.pooled.shape, 1, 1),
    ]
    assert {fusion.narrow[0].out_channels for fusion in term.fusions} == {
        min(512, student.pooled.shape[1])
    }


def test_mobilenetv2_cannot_teach_and_a_wrn_cannot_teach_a_vgg():
    with pytest.raises(UnfitError, match="pre-activations"):
        make_term("reviewkd", dry_pass("vgg8"), dry_pass("MobileNetV2"))
    with pytest.raises(UnfitError, match="student has 4 after the stem, the teacher 3"):
        make_term("reviewkd", dry_pass("vgg8"), dry_pass("wrn_40_2"))
