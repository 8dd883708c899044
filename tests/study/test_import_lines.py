"""The lines that `skd import-teacher` prints can be pasted into a sheet for any path."""

from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError

from skd.models import build_model
from skd.store.store import Store
from skd.study.expansion_files import load_expansion
from skd.study.import_lines import check_sheet_path, teacher_sheet_lines
from skd.study.sheet import ImportSource, StudyError
from tests.builders import tiny
from tests.builders.commands import Skd

PATHS = [
    "plain.pth",
    "vanilla,res8/student_best",
    'with a space/it\'s: a "net" #1 [x] {y}.pth',
    "- dash.pth",
    "yes",
    "1e3",
    "Zürich/学生.pth",
    "a\\b\nc.pth",
    f"{'long name ' * 20}.pth",
]


@pytest.mark.parametrize("path", PATHS)
def test_what_is_printed_is_yaml_that_means_the_same(path: str) -> None:
    source = ImportSource(file=Path(path), sha256="0" * 64)
    text = teacher_sheet_lines("resnet8", source)
    assert yaml.safe_load(text) == {
        "teachers": {"resnet8": {"import": {"file": path, "sha256": "0" * 64}}}
    }
    poor = source.model_copy(update={"accept_poor": True})
    entry = yaml.safe_load(teacher_sheet_lines("resnet8", poor))["teachers"]["resnet8"]["import"]
    assert ImportSource.model_validate(entry) == poor


def test_a_path_that_no_sheet_can_name_is_refused_first(
    skd: Skd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKD_T", "elsewhere")
    check_sheet_path(Path("$SKD_UNSET/x.pth"))
    Path("$SKD_T.pth").write_bytes(b"x")
    status, out, err = skd("import-teacher", "$SKD_T.pth", "--network", "resnet8")
    assert (status, out, "variable after '$'" in err) == (2, "", True)
    assert not Path("results").exists()
    with pytest.raises(StudyError, match="UTF-8"):
        check_sheet_path(Path("b\udcffd.pth"))


@pytest.mark.parametrize("path", ["vanilla,res8/student_best", "it's # 1: é.pth"])
def test_the_printed_lines_give_the_imported_teacher(
    skd: Skd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(path).parent.mkdir(exist_ok=True)
    torch.save({"model": build_model("resnet8", 10).state_dict()}, path)
    status, out, err = skd(
        "import-teacher", path, "--network", "resnet8", "--dataset", "synthetic", "--accept-poor"
    )
    assert status == 0, err
    lines = out.partition("In a study sheet:\n\n")[2]
    Path("own.yaml").write_text(
        f"title: own\ndataset: {{name: synthetic}}\n{lines}"
        "pairs: [{teacher: resnet8, student: resnet8}]\nmethods: [kd]\nseeds: 1\n"
    )
    (node,) = load_expansion("own.yaml", Path("results")).teachers
    assert Store(Path("results")).teacher(node.id).card() is not None
    assert node.source.accept_poor


def test_a_hash_is_taken_as_hash_tools_write_it_and_no_number() -> None:
    upper = ImportSource(file=Path("x"), sha256="0AB1" * 16)
    assert upper == ImportSource(file=Path("x"), sha256="0ab1" * 16)
    with pytest.raises(ValidationError, match="write them in quotes"):
        ImportSource(file=Path("x"), sha256=12345678)


def test_a_teacher_for_ones_own_photos_can_be_imported() -> None:
    folder = {"path": "mine", "classes": 3, "train_images": 9, "test_images": 6}
    study = tiny.study(
        dataset={"name": "imagefolder", "folder": folder},
        teachers={"teacher": {"network": "resnet18", "import": {"file": "x", "sha256": "0" * 8}}},
        pairs=[{"teacher": "teacher", "student": "resnet18"}],
        methods=["kd"],
        recipe={"epochs": 1, "milestones": [], "batch_size": 8},
    )
    assert study.teachers[0].spec.dataset.folder == study.dataset.folder
