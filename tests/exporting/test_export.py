"""`skd export`: files that other programs read, with the numbers of the store."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from skd.common import extras
from skd.library import load_network
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from skd.training.evaluation import Evaluator, Scores
from tests.builders import tiny
from tests.builders.commands import Skd


@pytest.fixture(scope="module")
def expansion() -> Expansion:
    return tiny.study()


@pytest.fixture(scope="module")
def results(expansion: Expansion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    tiny.run(expansion, folder, "skd")
    return folder


def run_entry(expansion: Expansion, results: Path) -> StoreEntry:
    return Store(results).run(expansion.cell(tiny.PAIR, "skd").runs[0])


def test_a_student_is_read_again_with_equal_weights(
    expansion: Expansion, results: Path, tmp_path: Path, skd: Skd
) -> None:
    entry = run_entry(expansion, results)
    status, out, error = skd("export", entry.id[:8], "--results", results, "--output", tmp_path)
    assert status == 0, error
    names = ["resnet8.pth", "model_card.md", "model_card.json"]
    assert out.splitlines()[1:] == [str(tmp_path / name) for name in names]
    # As RepDistiller and mdistiller read it.
    content = torch.load(tmp_path / "resnet8.pth", weights_only=True)
    stored = load_file(entry.weights_path)
    assert content["model"].keys() == stored.keys()
    assert all(torch.equal(content["model"][name], stored[name]) for name in stored)
    # The test images' logits, of the network as it is loaded again.
    network = load_network(tmp_path / "resnet8.pth", "resnet8", 10)
    arguments = ("--network", "resnet8", "--dataset", "digits")
    status, out, error = skd("evaluate", tmp_path / "resnet8.pth", *arguments)
    assert f"top-1 {entry.record().last.top1:.2f} %" in out, error
    assert network.state_dict().keys() == stored.keys()


def test_a_run_is_evaluated_by_its_identity_or_address(
    expansion: Expansion, results: Path, skd: Skd
) -> None:
    entry = run_entry(expansion, results)
    status, out, error = skd("evaluate", entry.id[:8], "--results", results)
    assert status == 0, error
    record = entry.record()
    first, second = out.splitlines()
    assert first.startswith(f"run {entry.id}: resnet8 on digits: top-1 {record.last.top1:.2f} %")
    assert second == f"recorded: top-1 {record.last.top1:.2f} %, the same"


def test_an_accuracy_that_is_not_the_recorded_one_is_reported(
    expansion: Expansion, results: Path, skd: Skd, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = run_entry(expansion, results)
    measured = Scores(loss=1.0, top1=entry.record().last.top1 + 1, top5=100.0)
    monkeypatch.setattr(Evaluator, "scores", lambda *_: measured)
    _, out, _ = skd("evaluate", entry.id, "--results", results)
    assert out.splitlines()[1] == f"recorded: top-1 {measured.top1 - 1:.2f} %"
    assert out.splitlines()[2] == "measured now: +1.00 points from the record"


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["0000", "--dataset", "digits"], "has its own data set: leave out --dataset"),
        (["0000"], "no run or teacher '0000'"),
        (["x.pth"], "add --network NAME"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    results: Path, skd: Skd, arguments: list[str], fragment: str
) -> None:
    status, out, error = skd("evaluate", *arguments, "--results", results)
    assert (status, out) == (2, "")
    assert fragment in error


def test_the_card_has_what_the_record_has(
    expansion: Expansion, results: Path, tmp_path: Path, skd: Skd
) -> None:
    entry = run_entry(expansion, results)
    skd("export", entry.id, "--results", results, "--output", tmp_path)
    record, card = entry.record(), json.loads((tmp_path / "model_card.json").read_text())
    assert card["id"] == entry.id
    assert (card["kind"], card["network"], card["num_classes"]) == ("run", "resnet8", 10)
    assert card["last"]["top1"] == record.last.top1
    assert card["best"]["epoch"] == record.best.epoch
    assert card["teacher"]["top1"] == record.teacher.test_top1
    assert card["recipe"]["epochs"] == 3
    assert card["seed"] == 0
    assert card["weights_sha256"] == record.files["weights.safetensors"]
    assert card["code"]["sources"] == record.environment["sources"]
    assert [part["name"] for part in card["method"]["parts"]] == [
        "cross_entropy",
        "kd",
        "simplifier",
    ]
    page = (tmp_path / "model_card.md").read_text()
    assert f"top-1 {record.last.top1:.2f} %" in page
    assert 'load_network("resnet8.pth", "resnet8", 10)' in page
    assert "minus the mean (0.306, 0.306, 0.306)" in page


def test_a_teacher_is_imported_again_with_its_accuracy(
    expansion: Expansion, results: Path, tmp_path: Path, skd: Skd
) -> None:
    node = expansion.teacher("teacher")
    status, out, error = skd("export", node.id, "--results", results)
    assert status == 0, error
    folder = results / "exports" / f"resnet8-{node.id}"
    assert str(folder / "resnet8.pth") in out
    arguments = ("--network", "resnet8", "--dataset", "digits", "--accept-poor")
    status, _, error = skd(
        "import-teacher", folder / "resnet8.pth", *arguments, "--results", tmp_path
    )
    assert status == 0, error
    (imported,) = (tmp_path / "teachers").iterdir()
    entries = [Store(results).teacher(node.id), Store(tmp_path).teacher(imported.name)]
    first, second = (load_file(entry.weights_path) for entry in entries)
    assert all(torch.equal(first[name], second[name]) for name in first)
    # The import computes in another memory format.
    first, second = (load_file(entry.logits_path)["logits"].float() for entry in entries)
    torch.testing.assert_close(first, second, rtol=2e-3, atol=1e-3)
    # The imported teacher is exported, too: no study has it.
    status, _, error = skd("export", imported.name, "--results", tmp_path)
    assert status == 0, error
    card = json.loads(
        (tmp_path / "exports" / f"resnet8-{imported.name}" / "model_card.json").read_text()
    )
    assert (card["origin"], card["recipe"]) == ("imported from resnet8.pth", None)


def test_damaged_weights_and_unfinished_runs_are_refused(
    expansion: Expansion, results: Path, tmp_path: Path, skd: Skd
) -> None:
    tiny.run(expansion, tmp_path, "student")
    entry = Store(tmp_path).run(expansion.cell("resnet8", "student").runs[0])
    content = bytearray(entry.weights_path.read_bytes())
    content[-1] ^= 1
    entry.weights_path.write_bytes(content)
    status, _, error = skd("export", entry.id, "--results", tmp_path)
    assert status == 2
    assert "it is damaged or replaced" in error
    entry.record_path.unlink()
    status, _, error = skd("export", entry.id, "--results", tmp_path)
    assert status == 2
    assert "has no result to export (run interrupted" in error or "run missing" in error
    assert not (tmp_path / "exports").exists()


def test_onnx_gives_equal_logits_for_any_batch(
    expansion: Expansion, results: Path, tmp_path: Path, skd: Skd
) -> None:
    for package in extras.EXTRAS["onnx"]:
        pytest.importorskip(package)
    import onnx
    import onnxruntime

    entry = run_entry(expansion, results)
    status, _, error = skd("export", entry.id, "--onnx", "--results", results, "--output", tmp_path)
    assert status == 0, error
    file = tmp_path / "resnet8.onnx"
    opsets = {each.domain: each.version for each in onnx.load(file).opset_import}
    assert opsets[""] == 18
    network = load_network(tmp_path / "resnet8.pth", "resnet8", 10).eval()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        images = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(
                torch.from_numpy(logits), network(images), rtol=1e-4, atol=1e-5
            )
    card = json.loads((tmp_path / "model_card.json").read_text())
    assert card["files"][1]["opset"] == 18
    assert card["files"][1]["largest_difference"] < 1e-3


def test_a_missing_extra_is_named_before_anything_is_written(
    results: Path, tmp_path: Path, skd: Skd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    status, _, error = skd(
        "export", "0" * 8, "--onnx", "--results", results, "--output", tmp_path / "x"
    )
    assert status == 2
    assert (
        "--onnx needs the package onnx; install it with the extra 'onnx': pip install 'skd[onnx]'"
        in error
    )
    assert not (tmp_path / "x").exists()
