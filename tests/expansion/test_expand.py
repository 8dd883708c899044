"""Study sheets: their expansion, and teachers that are imported."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from skd.expansion.expand import expand_study
from skd.study.expansion import Expansion
from skd.study.sheet_files import STUDIES_FOLDER, StudyError, find_sheet, study_names
from tests.builders.sheets import IMPORT, put, run_ids

# The expansion of sheets.


def test_the_demo_expands_to_its_cells() -> None:
    demo = expand_study("demo")
    taught = {f"resnet20--resnet8/{method}" for method in demo.methods if method != "student"}
    assert {cell.key for cell in demo.cells} == {"resnet8/student", *taught}
    assert len(set(run_ids(demo).values())) == len(run_ids(demo)) == 10 * 3


def test_pairs_of_one_student_share_the_student_alone(expanded: Callable[..., Expansion]) -> None:
    study = expanded(put("pairs", 1, "without", ["skd"]))
    taught = {"big--resnet8/kd", "big--resnet8/skd", "wrn_16_2--resnet8/kd"}
    keys = {cell.key for cell in study.cells if cell.student == "resnet8"}
    assert keys == {"resnet8/student", *taught}
    assert len(set(run_ids(study).values())) == len(run_ids(study)) == 2 * (4 + 3)
    assert study.methods_of("big", "resnet8") == list(study.methods)
    assert study.methods_of("wrn_16_2", "resnet8") == ["student", "kd"]
    alone = study.cell_of("big", "resnet8", "student")
    assert alone is study.cell_of("wrn_16_2", "resnet8", "student")
    assert alone.teacher is None
    assert study.cell_of("wrn_16_2", "resnet8", "kd").key == "wrn_16_2--resnet8/kd"


def test_cells_name_the_identities_of_their_specs(expanded: Callable[..., Expansion]) -> None:
    study = expanded()
    for cell in study.cells:
        assert cell.runs == {seed: cell.run(seed).identity for seed in (0, 1)}
        assert cell.spec.network == cell.student
        teacher = cell.spec.teacher
        assert (teacher and teacher.identity) == (cell.teacher and study.teacher(cell.teacher).id)
    assert len({cell.digest for cell in study.cells}) == len(study.cells)


@pytest.mark.parametrize("path", sorted(STUDIES_FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sheet_expands(path: Path) -> None:
    study = expand_study(path.stem)
    assert study.study == path.stem
    assert {cell.method for cell in study.cells} == set(study.methods)


def test_a_number_of_seeds_counts_from_zero(expanded: Callable[..., Expansion]) -> None:
    assert expanded(put("seeds", 3)).seeds == (0, 1, 2)
    assert expanded(put("seeds", [5, 3])).seeds == (5, 3)


def test_ones_own_sheets_come_before_the_shipped_ones(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    assert find_sheet("demo").parent == STUDIES_FOLDER
    own = write().rename(tmp_path / "demo.yaml")
    assert find_sheet("demo") == own
    write()
    assert {"mine", "demo"} <= set(study_names())
    assert study_names().count("demo") == 1
    with pytest.raises(StudyError, match=r"unknown study 'mime' \(did you mean 'mine'\?\)"):
        find_sheet("mime")


def test_a_missing_file_expands_and_is_hashed_once_it_exists(
    expanded: Callable[..., Expansion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_T", str(tmp_path))
    dry = expanded(IMPORT).teacher("big")
    assert dry.source.file == tmp_path / "big.pth"
    (tmp_path / "big.pth").write_bytes(b"weights")
    teacher = expanded(IMPORT).teacher("big")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert teacher.spec.sha256 == sha256 != dry.spec.sha256
    assert teacher.id != dry.id
    pinned = {"network": "resnet20", "import": {"url": "https://example.org/x", "sha256": sha256}}
    elsewhere = expanded(put("teachers", "big", pinned)).teacher("big")
    assert elsewhere.origin != teacher.origin
    assert elsewhere.id == teacher.id


def test_a_pinned_hash_is_trusted(
    expanded: Callable[..., Expansion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_T", str(tmp_path))
    pinned = put("teachers", "big", "import", "sha256", "a" * 64)
    dry = expanded(IMPORT, pinned).teacher("big")
    (tmp_path / "big.pth").write_bytes(b"other weights")
    assert expanded(IMPORT, pinned).teacher("big").id == dry.id
    assert dry.spec.sha256 == "a" * 64


def test_an_imported_teacher_that_was_trained_on_validation_images_is_marked(
    expanded: Callable[..., Expansion],
) -> None:
    seen_validation = put("teachers", "big", "import", "seen_validation", True)
    marked = expanded(IMPORT, put("dataset", "split", "validation"), seen_validation).teacher("big")
    plain = expanded(IMPORT).teacher("big")
    assert (marked.leaks, plain.leaks) == (True, False)
    assert marked.id == plain.id  # it is the same teacher
