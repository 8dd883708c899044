"""SimKD: the error of the projected map, and a run that is judged by the teacher's classifier."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from baselines._maps import last_maps, pools_last_maps
from baselines.simkd import simkd_loss
from report.output.write import write_report
from skd.analyses.analyse import analyse_study
from skd.analyses.networks import features
from skd.data import load_dataset as load_images
from skd.losses import methods
from skd.losses.methods import resolve_method
from skd.models import build_model, network_names
from skd.models.accounting import count_parameters, multiply_adds
from skd.models.network import dry_pass
from skd.randomness import seeded
from skd.store.store import Store
from skd.study.sheet import SheetMethod, StudyError
from skd.terms import Batch, Classification, Term, UnfitError
from skd.training.execution import choose_execution
from skd.training.inference_cost import inference_cost
from skd.training.loop import Training
from skd.training.resources import DeviceDataset
from skd.training.teacher import LiveTeacher
from tests.builders import tiny
from tests.builders.commands import Skd
from tests.builders.losses import assert_follows, draw, make_batch, make_outputs, make_term, slopes
from tests.builders.networks import images, lived_in
from tests.builders.teachers import Parts, batch_normed

WIDTH, CLASSES = 6, 5


def make_pair(ours: int, theirs: int):
    student = make_outputs(0, 3, [(2, 8, 8), (4, ours, ours)])
    return student, make_outputs(1, 3, [(2, 8, 8), (WIDTH, theirs, theirs)], CLASSES)


def blocks(maps, size):
    step = maps.shape[2] // size
    return maps.reshape(*maps.shape[:2], size, step, size, step).mean(dim=(3, 5))


def project(maps, weights, norms):
    """Three convolutions with BatchNorm and ReLU, the second one 3×3 with zeros around."""
    for weight, norm in zip(weights, norms, strict=True):
        kernel, size = weight.shape[2], maps.shape[2]
        around = nn.functional.pad(maps, [kernel // 2] * 4)
        maps = sum(
            torch.einsum(
                "bchw,dc->bdhw", around[:, :, i : i + size, j : j + size], weight[:, :, i, j]
            )
            for i, j in np.ndindex(kernel, kernel)
        )
        maps = batch_normed(maps, norm).clamp(min=0)
    return maps


def parts_of(term):
    return [term.projector[i].weight for i in (0, 3, 6)], [term.projector[i] for i in (1, 4, 7)]


@pytest.mark.parametrize(("ours", "theirs"), [(2, 2), (4, 2), (2, 4)])
def test_logits_loss_and_gradients_follow_the_projector(ours, theirs):
    student, teacher = make_pair(ours, theirs)
    network = Parts(WIDTH, CLASSES)
    term = make_term("simkd", student, teacher, teacher_network=network)
    classification = term.classify(student)
    batch = replace(make_batch(student, teacher), classification=classification)
    loss = term(batch)
    loss.backward()
    weights, norms = parts_of(term)
    target = blocks(teacher.preactivations[-1].detach().clamp(min=0), 2)

    def projected(maps, *changed):
        return project(blocks(maps.clamp(min=0), 2), changed, norms).detach()

    def value(maps, *changed):
        return (projected(maps, *changed) - target).square().sum().item() / target.numel()

    leaf, fixed = student.preactivations[-1].detach(), [w.detach() for w in weights]
    assert loss.item() == pytest.approx(value(leaf, *fixed), rel=1e-11)
    pooled = projected(leaf, *fixed).mean(dim=(2, 3))
    logits = pooled @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(classification.logits, logits, rtol=1e-11, atol=1e-12)
    by_maps = slopes(lambda x: value(x, *fixed), leaf)
    np.testing.assert_allclose(student.preactivations[-1].grad, by_maps, rtol=1e-5, atol=1e-8)
    by_last = slopes(lambda x: value(leaf, *fixed[:2], x), fixed[2])
    np.testing.assert_allclose(weights[2].grad, by_last, rtol=1e-5, atol=1e-8)
    assert all(parameter.grad is not None for parameter in term.parameters())
    assert student.logits.grad is None
    assert student.pooled.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_loss_is_a_mean_over_all_elements():
    def in_loops(first, second):
        return sum((first[i] - second[i]) ** 2 for i in np.ndindex(first.shape)) / first.size

    shape = (2, 3, 2, 2)
    assert_follows(simkd_loss, in_loops, draw(0, shape), draw(1, shape))


def test_the_defaults_are_the_authors():
    method = resolve_method(SheetMethod(name="simkd"), {})
    assert {t.term: t.settings["weight"] for t in method.terms} == {"cross_entropy": 0, "simkd": 1}
    network = Parts(WIDTH, CLASSES)
    term = make_term("simkd", *make_pair(2, 2), teacher_network=network)
    assert [tuple(weight.shape) for weight in parts_of(term)[0]] == [
        (3, 4, 1, 1),
        (3, 3, 3, 3),
        (6, 3, 1, 1),
    ]


@torch.no_grad()
@pytest.mark.parametrize("name", network_names())
def test_the_pooled_map_is_the_one_that_the_classifier_reads(name):
    outputs = dry_pass(lived_in(name), images(size=32))
    has_head = name in ("MobileNetV2", "ShuffleV2")
    assert pools_last_maps(outputs) != has_head
    if not has_head:
        torch.testing.assert_close(last_maps(outputs).mean(dim=(2, 3)), outputs.pooled)


def test_what_does_not_fit_is_refused():
    student, teacher = make_pair(2, 2)
    network = Parts(WIDTH, CLASSES)
    wide = replace(teacher, pooled=draw(5, (3, 9)))
    with pytest.raises(UnfitError, match="layers between its last map and its classifier"):
        make_term("simkd", student, wide, teacher_network=network)
    with pytest.raises(UnfitError, match="reduction may be at most 6"):
        make_term("simkd", student, teacher, teacher_network=network, reduction=7)


class AlsoClassifies(Term):
    replaces_classifier = True

    def classify(self, student):
        return Classification(student.logits, student.logits)

    def forward(self, batch: Batch):
        return batch.student.logits.mean()


def test_two_terms_that_replace_the_classifier_are_refused(monkeypatch):
    known = {**methods.term_classes(), "other": AlsoClassifies}
    monkeypatch.setattr(methods, "term_classes", lambda: known)
    monkeypatch.setattr(methods, "term_class", known.__getitem__)
    with pytest.raises(StudyError, match="simkd and other both replace the student's classifier"):
        resolve_method(SheetMethod(name="simkd+other"), {})


def test_a_teacher_keeps_its_classifier(monkeypatch):
    known = {**methods.term_classes(), "other": AlsoClassifies}
    monkeypatch.setattr(methods, "term_classes", lambda: known)
    monkeypatch.setattr(methods, "term_class", known.__getitem__)
    trained = {"network": "resnet8", "train": {"seed": 0, "method": "other"}}
    with pytest.raises(StudyError, match="other replaces the network's classifier, and a teacher"):
        tiny.study(teachers={"teacher": trained})
    assert "other" not in methods.teacher_methods()


# A run, from its sheet to its record and its analysis.

EPOCHS = {"epochs": 2, "milestones": []}
METHODS = ["simkd", "skd+simkd"]
STUDY = tiny.study(
    methods=METHODS,
    recipe=EPOCHS,
    seeds=1,
    settings={"simplifier": {"learning_rate_multiplier": 1.0}},
    pairs=[{"teacher": "teacher", "student": name} for name in ("resnet8", "MobileNetV2")],
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    for method in METHODS:
        tiny.run(STUDY, results, method)
    return results


def stored(results: Path, method: str):
    entry = Store(results).run(STUDY.cell(tiny.PAIR, method).runs[0])
    return entry, entry.record()


@torch.no_grad()
@pytest.mark.parametrize(("method", "prefix"), [("simkd", ""), ("skd+simkd", "simkd.")])
def test_the_accuracy_is_that_of_projector_and_teachers_classifier(results, method, prefix):
    entry, record = stored(results, method)
    student, teacher = build_model("resnet8", 10), build_model("resnet8", 10)
    student.load_state_dict(load_file(entry.weights_path))
    teacher.load_state_dict(load_file(Store(results).teacher(STUDY.teachers[0].id).weights_path))
    tensors = load_file(entry.objective_path)
    assert any(key.startswith(prefix) for key in tensors)
    assert not any("teacher" in key or "fc" in key for key in tensors)
    own = {key.removeprefix(f"{prefix}projector."): value for key, value in tensors.items()}
    maps_of = dry_pass_in_batches(student.eval())
    maps = maps_of.stages[-1]
    for index in (0, 3, 6):
        weight = own[f"{index}.weight"]
        maps = nn.functional.conv2d(maps, weight, padding=weight.shape[2] // 2)
        mean, variance, scale, shift = (
            own[f"{index + 1}.{name}"][:, None, None]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        maps = ((maps - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
    logits = maps.mean(dim=(2, 3)) @ teacher.fc.weight.T + teacher.fc.bias
    labels = load_images(STUDY.dataset).test_labels
    accuracy = 100 * (logits.argmax(dim=1) == labels).double().mean().item()
    assert record.last.top1 == pytest.approx(accuracy, abs=0.13)  # one image of 797
    kept = load_file(entry.logits_path)["logits"].float()
    torch.testing.assert_close(kept, logits, rtol=2e-3, atol=2e-3)
    own_accuracy = 100 * (maps_of.logits.argmax(dim=1) == labels).double().mean().item()
    assert abs(own_accuracy - accuracy) > 1  # the student's own classifier is untrained


def dry_pass_in_batches(student):
    data = DeviceDataset(load_images(STUDY.dataset), torch.device("cpu"))
    views = data.views_for_training(STUDY.recipe)
    return student.forward_features(views.normalise(data.images.test_images))


def test_the_students_own_classifier_is_as_it_was_initialised(results):
    entry, record = stored(results, "simkd")
    with seeded(record.spec.seed, "weights"):
        start = build_model("resnet8", 10).state_dict()
    end = load_file(entry.weights_path)
    assert torch.equal(start["fc.weight"], end["fc.weight"])
    assert not torch.equal(start["conv1.weight"], end["conv1.weight"])


def test_the_cost_is_that_of_what_is_used(results):
    record = stored(results, "simkd")[1]
    inner, width, positions = 32, 64, 4 * 4
    convolutions = width * inner + 9 * inner * inner + inner * width
    projector = convolutions + 2 * (2 * inner + width)
    student = build_model("resnet8", 10)
    # The teacher's classifier replaces the student's, which is as large.
    assert record.cost.parameters == count_parameters(student) + projector
    assert record.cost.extra_parameters == 0
    expected = multiply_adds(student, (3, 16, 16)) + positions * convolutions
    assert record.cost.multiply_adds == expected
    both = stored(results, "skd+simkd")[1]
    assert both.cost.parameters == record.cost.parameters
    assert both.cost.extra_parameters == 2 * 10 + 4 * 10**2  # the simplifier


def test_the_report_says_that_what_replaces_the_classifier_is_kept(results):
    page = write_report(STUDY, results).read_text()
    assert "inference costs the same with every method, except SimKD and SKD + SimKD: what" in page


def test_layers_of_the_student_that_are_not_used_do_not_count():
    spec = STUDY.cell("teacher--MobileNetV2", "simkd").run(0)
    network = build_model("resnet8", 10).eval().requires_grad_(False)
    dataset = DeviceDataset(load_images(STUDY.dataset), torch.device("cpu"))
    training = Training(spec, dataset, LiveTeacher(network), choose_execution("cpu", 1))
    student, cost = training.student, inference_cost(training)
    unused = count_parameters(student.conv2) + count_parameters(student.classifier)
    kept = count_parameters(training.objective)
    assert cost.kept_parameters == kept
    teachers = count_parameters(network.fc)
    assert cost.parameters == count_parameters(student) - unused + kept + teachers


def test_dry_runs_count_the_projectors_convolutions():
    extra = STUDY.cell(tiny.PAIR, "simkd").extra
    assert extra.parameters == 64 * 32 + 9 * 32 * 32 + 32 * 64 + 2 * (2 * 32 + 64)
    # With the teacher's classifier, which a forward pass of the term runs.
    assert extra.multiply_adds == 16 * (64 * 32 + 9 * 32 * 32 + 32 * 64)


def test_agreement_is_analysed_and_features_are_refused_with_the_reason(results, monkeypatch):
    monkeypatch.setattr(features, "IMAGES_PER_CLASS", 4)
    analysis = analyse_study(STUDY, results, features=["simkd"])
    run = STUDY.cell(tiny.PAIR, "simkd").runs[0]
    record = stored(results, "simkd")[1]
    assert analysis.runs[run].top1 == pytest.approx(record.last.top1, abs=0.2)
    assert analysis.runs[run].agreement is not None
    assert "simkd replaces the student's classifier" in str(analysis.skipped[run])
    panels = [panel.what for each in analysis.embeddings.values() for panel in each.panels]
    assert set(panels) == {"teacher"}


def test_an_export_without_the_projector_is_refused(results, tmp_path, skd: Skd):
    entry, _ = stored(results, "simkd")
    status, _, error = skd("export", entry.id, "--results", results, "--output", tmp_path / "out")
    assert status != 0
    assert "simkd replaces the student's classifier" in " ".join(error.split())
    assert not (tmp_path / "out").exists()
