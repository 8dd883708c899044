"""A bad teacher is refused or causes a warning, and a student's failure names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from report.findings import read_findings
from report.output.write import report_markdown
from skd.common.errors import RunFailedError, TeacherError
from skd.common.files import sha256_of
from skd.models import build_model
from skd.store.store import Store, StoreEntry
from skd.store.teacher_accuracy import (
    accuracy_doubts,
    below_published_text,
    min_teacher_accuracy,
    poor_accuracy_text,
)
from skd.study.published import PublishedError
from skd.study.sheet import ImportSource
from skd.study.spec import DatasetSpec, ImportedTeacher
from skd.training.resources import Resources
from skd.training.stored_views import TeacherViewsError, make_teacher_views
from skd.training.teacher_setup import import_teacher, train_teacher, warn_about_teacher
from skd.training.weights import save_tensors
from tests.builders import tiny
from tests.builders.commands import Skd
from tests.builders.reported_study import filled, make_card, make_study

CPU = torch.device("cpu")
SYNTHETIC = DatasetSpec(name="synthetic")
CIFAR = ImportedTeacher(network="resnet56", dataset=DatasetSpec(name="cifar100"), sha256="0" * 64)


# The judgement.


@pytest.mark.parametrize(
    ("classes", "least"), [(1000, 0.2), (100, 2.0), (10, 20.0), (3, 200 / 3), (2, 75.0), (1, 100.0)]
)
def test_a_teacher_has_at_least_twice_the_chance_level_where_that_can_be(
    classes: int, least: float
) -> None:
    assert min_teacher_accuracy(classes) == pytest.approx(least)
    assert poor_accuracy_text(least, classes) is None
    assert f"on {classes} classes" in poor_accuracy_text(least - 0.1, classes)


def test_a_teacher_is_held_against_what_is_published_for_it() -> None:
    assert below_published_text(CIFAR, 70.34) is None
    message = below_published_text(CIFAR, 70.0)
    assert (
        message == "top-1 70.00 % is 2.34 points below the published 72.34 % (RepDistiller README)"
    )
    assert below_published_text(CIFAR.model_copy(update={"network": "resnet8"}), 1.0) is None
    assert len(accuracy_doubts(CIFAR, 1.0, 100)) == 2


@pytest.mark.parametrize(
    ("dataset", "recipe", "compared"),
    [
        ({}, {}, True),
        ({}, {"epochs": 2, "milestones": []}, False),
        ({"train_limit": 100}, {}, False),
    ],
)
def test_a_teacher_trained_by_another_recipe_is_not_held_against_it(
    dataset: dict[str, Any], recipe: dict[str, Any], compared: bool
) -> None:
    study = tiny.study(
        dataset={"name": "cifar100", **dataset},
        recipe=recipe,
        teachers={"teacher": {"network": "resnet56", "train": {"seed": 0}}},
    )
    assert (below_published_text(study.teachers[0].spec, 50.0) is not None) == compared


def test_a_teacher_trained_by_another_method_is_not_held_against_it() -> None:
    for source, compared in (({}, True), ({"method": "soteacher"}, False)):
        train = {"seed": 0, **source}
        study = tiny.study(
            dataset={"name": "cifar100"},
            recipe={},
            teachers={"teacher": {"network": "resnet56", "train": train}},
        )
        assert (below_published_text(study.teachers[0].spec, 50.0) is not None) == compared


# At the import.


def untrained() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model("resnet8", 10)


def import_(
    network: nn.Module, folder: Path, dataset: DatasetSpec = SYNTHETIC, **source: Any
) -> tuple[StoreEntry, Callable[[], Any]]:
    file = folder / "given.pth"
    torch.save(network.state_dict(), file)
    spec = ImportedTeacher(network="resnet8", dataset=dataset, sha256=sha256_of(file))
    entry = Store(folder).teacher(spec.identity)
    import_source = ImportSource(file=file, **source)
    return entry, lambda: import_teacher(spec, import_source, entry, CPU)


def test_a_poor_teacher_is_imported_only_on_request(tmp_path: Path) -> None:
    entry, refused = import_(untrained(), tmp_path)
    with pytest.raises(TeacherError, match=r"given\.pth for resnet8 is a poor .*accept_poor: true"):
        refused()
    assert list(entry.folder.iterdir()) == []
    same, accepted = import_(untrained(), tmp_path, accept_poor=True)
    assert same.id == entry.id
    card = accepted()
    assert card.test_top1 < 20
    assert accepted() == card
    with pytest.raises(TeacherError, match=f"{entry.id} is a poor teacher"):  # also from the store
        refused()


def test_weights_and_logits_that_are_not_finite_are_refused_whatever_is_accepted(
    tmp_path: Path,
) -> None:
    network = untrained()
    network.bn1.running_var[3] = -1.0  # finite, but its square root is not
    entry, refused = import_(network, tmp_path, accept_poor=True)
    with pytest.raises(TeacherError, match="logits are not finite on 100 of 100 test images"):
        refused()
    network.bn1.running_var[3] = float("inf")
    other, refused = import_(network, tmp_path, accept_poor=True)
    with pytest.raises(TeacherError, match=r"in bn1\.running_var \(1 of 16 values\).*half"):
        refused()
    assert list(entry.folder.iterdir()) == list(other.folder.iterdir()) == []


def test_what_does_not_fit_is_reported_before_any_image_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Resources, "dataset", None)
    _, refused = import_(untrained(), tmp_path, DatasetSpec(name="cifar100"))
    with pytest.raises(TeacherError, match="it is for 10 classes, and the data set has 100"):
        refused()


def test_the_card_says_what_was_converted(tmp_path: Path) -> None:
    _, accepted = import_(untrained().half(), tmp_path, accept_poor=True)
    assert accepted().origin == "imported from given.pth, converted from float16"


def test_a_file_of_published_values_that_cannot_be_read_costs_no_teacher(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise PublishedError("skd.csv, line 20: top1: not a number")

    monkeypatch.setattr("skd.store.teacher_accuracy.published_teacher", broken)
    warn_about_teacher("resnet56", CIFAR, make_card(make_study(), "resnet56"))
    assert "warning: teacher resnet56: it is not compared with" in capsys.readouterr().err


def test_a_poor_teacher_that_is_trained_here_is_only_warned_of(
    skd: Skd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(
        "title: own\ndataset: {name: synthetic, train_limit: 64}\n"
        "recipe: {epochs: 1, milestones: []}\n"
        "teachers: {big: {network: resnet8, train: {seed: 0, recipe: {learning_rate: 1.0e-9}}}}\n"
        "pairs: [{teacher: big, student: resnet8}]\nmethods: [kd]\nseeds: 1\n"
    )
    status, out, err = skd("teacher", "own.yaml", "big", "--device", "cpu", "--threads", "1")
    assert (status, "teacher big: " in out) == (0, True)
    assert "warning: teacher big: top-1 " in err


# While a student is trained.


@pytest.fixture
def broken(tmp_path: Path) -> Store:
    """Return a store whose teacher has finite weights but no finite logits."""
    study, store = tiny.study(methods=["kd"]), Store(tmp_path)
    node = study.teachers[0]
    entry = store.teacher(node.id)
    card = train_teacher(node.spec, entry, tiny.options(), "teacher")
    spoil(entry, -1.0, card)
    return store


def spoil(entry: StoreEntry, value: float, card: Any) -> None:
    weights = untrained().state_dict()
    weights["bn1.running_var"][0] = value
    files = save_tensors(entry.weights_path, weights)
    if (record := entry.record()) is not None:  # another card would contradict the record
        entry.write(record.model_copy(update={"files": {**record.files, **files}}))
    entry.write(card.model_copy(update={"sha256": files[entry.weights_path.name]}))


def test_a_students_failure_names_its_teacher(broken: Store) -> None:
    with pytest.raises(RunFailedError, match=r"epoch 1, step 1 .*the teacher's outputs") as failed:
        tiny.run(tiny.study(methods=["kd"]), broken.root, "kd")
    assert "learning rate" not in str(failed.value)


def test_views_that_are_not_finite_are_not_stored(broken: Store) -> None:
    study = tiny.study(methods=["kd"])
    entry = broken.teacher(study.teachers[0].id)
    with pytest.raises(TeacherViewsError, match="logits are not finite on some views"):
        make_teacher_views(entry, study.dataset, ["logits"], "float32", tiny.options().execution)
    assert not list(entry.folder.glob("views-*/*.npy"))


def test_stored_weights_that_are_not_finite_teach_nobody(broken: Store) -> None:
    study = tiny.study(methods=["kd"])
    entry = broken.teacher(study.teachers[0].id)
    spoil(entry, float("nan"), entry.card())
    with pytest.raises(RunFailedError, match=rf"the teacher {entry.id} .*NaN or infinity in bn1"):
        tiny.run(study, broken.root, "kd")


# In the report.


def test_the_report_marks_a_doubtful_teacher_and_gives_the_reason(tmp_path: Path) -> None:
    study = filled(tmp_path)
    assert "chance level" not in report_markdown(read_findings(study, tmp_path))
    store = Store(tmp_path)
    card = make_card(study, "vgg13", test_top1=1.0)
    store.teacher(card.id).write(card)
    findings = read_findings(study, tmp_path)
    frame = findings.frames.teachers.set_index("name")["doubts"]
    assert list(frame[["resnet56", "resnet110"]]) == ["", ""]
    assert "where chance is 1.00 %" in frame["vgg13"]
    assert "73.64 points below the published 74.64 %" in frame["vgg13"]
    text = report_markdown(findings)
    assert "Teacher VGG-13 is at or near chance level" in text
    assert f"VGG-13: {frame['vgg13']}" in text
    assert "| VGG-13 | 1.00; doubtful |" in text
