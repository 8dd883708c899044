"""Teachers: read from public checkpoints, measured again, and frozen."""

import hashlib
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from skd.common.errors import TeacherError
from skd.common.files import sha256_of
from skd.data import load_dataset as load_images
from skd.models import build_model
from skd.models.accounting import count_parameters
from skd.store.store import Store, StoreEntry
from skd.study.sheet import ImportSource
from skd.study.spec import DatasetSpec, ImportedTeacher
from skd.training import teacher_setup
from skd.training.network_loading import build_from_state_dict
from skd.training.teacher_setup import import_teacher
from skd.training.weights import load_teacher_network

CPU = torch.device("cpu")
poor = partial(ImportSource, accept_poor=True)  # these networks are not trained
SYNTHETIC = DatasetSpec(name="synthetic")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small network whose BatchNorm statistics are not the fresh ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("resnet8", 10)
        model(torch.randn(16, 3, 32, 32))
    return model


@pytest.fixture
def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# Fitting.


def test_weights_are_loaded_whole_and_no_global_randomness_is_drawn(
    weights: dict[str, Tensor],
) -> None:
    state = torch.get_rng_state()
    loaded = build_from_state_dict("resnet8", 10, weights, what="it")
    assert torch.equal(torch.get_rng_state(), state)
    assert same(loaded.state_dict(), weights)


def test_weights_that_do_not_fit_are_named(weights: dict[str, Tensor]) -> None:
    names = list(weights)
    lost, reshaped = names[0], names[-1]
    wrong = {k: v for k, v in weights.items() if k != lost} | {
        "extra": torch.zeros(1),
        reshaped: torch.zeros(100),
    }
    with pytest.raises(TeacherError) as caught:
        build_from_state_dict("resnet8", 10, wrong, what="my.pth for resnet8")
    shape = tuple(weights[reshaped].shape)
    assert str(caught.value) == (
        f"my.pth for resnet8 does not fit: missing 1: {lost}; unexpected 1: extra; "
        f"shapes 1: {reshaped} (100,) instead of {shape}"
    )


def test_many_that_do_not_fit_are_counted_and_five_named(weights: dict[str, Tensor]) -> None:
    more = weights | {f"extra{i}": torch.zeros(1) for i in range(9)}
    own = [name for name in weights if not name.endswith("num_batches_tracked")]
    for wrong, problem in ((more, "unexpected 9: "), ({}, f"missing {len(own)}: ")):
        with pytest.raises(TeacherError) as caught:
            build_from_state_dict("resnet8", 10, wrong, what="it")
        named = str(caught.value).partition(problem)[2].split(", ")
        assert len(named) == 6
        assert named[-1] == "…"


# Importing.


@pytest.fixture
def file(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    path = tmp_path / "given.pth"
    torch.save({"model": weights}, path)
    return path


@pytest.fixture
def spec(file: Path) -> ImportedTeacher:
    return ImportedTeacher(network="resnet8", dataset=SYNTHETIC, sha256=sha256_of(file))


@pytest.fixture
def entry(tmp_path: Path, spec: ImportedTeacher) -> StoreEntry:
    return Store(tmp_path).teacher(spec.identity)


@torch.no_grad()
def measure(network: nn.Module, dataset: DatasetSpec) -> tuple[Tensor, float, float]:
    """Evaluate in the simplest way: float images, channel by channel, in one batch."""
    images = load_images(dataset)
    pixels = images.test_images.float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (images.mean, images.std))
    network.eval()
    logits = network((pixels - mean) / std)
    order = logits.argsort(dim=1, descending=True)
    hits = order == images.test_labels[:, None]
    return (
        logits,
        100 * hits[:, 0].float().mean().item(),
        100 * hits[:, :5].sum().item() / len(hits),
    )


def test_an_import_is_measured_here_and_its_card_records_it(
    file: Path,
    spec: ImportedTeacher,
    entry: StoreEntry,
    network: nn.Module,
    weights: dict[str, Tensor],
) -> None:
    card = import_teacher(spec, poor(file=file), entry, CPU)
    logits, top1, top5 = measure(network, SYNTHETIC)
    assert card.test_top1 == pytest.approx(top1)
    assert card.test_top5 == pytest.approx(top5)
    assert entry.card() == card
    assert (card.id, card.kind, card.network, card.dataset) == (
        entry.id,
        "imported",
        "resnet8",
        "synthetic",
    )
    assert card.origin == "imported from given.pth"
    assert card.source_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card.sha256 == hashlib.sha256(entry.weights_path.read_bytes()).hexdigest()
    assert card.parameters == count_parameters(network)
    assert same(load_file(entry.weights_path), weights)
    stored = load_file(entry.logits_path)["logits"]
    assert stored.dtype == torch.float16
    assert torch.allclose(stored.float(), logits, atol=2e-3 * float(logits.abs().max()))
    assert {path.name for path in entry.folder.iterdir()} == {
        "card.json",
        "weights.safetensors",
        "test_logits.safetensors",
    }


def test_an_import_is_done_once(
    file: Path, spec: ImportedTeacher, entry: StoreEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = import_teacher(spec, poor(file=file), entry, CPU)
    file.unlink()
    monkeypatch.setattr(teacher_setup, "build_from_state_dict", None)
    assert import_teacher(spec, poor(file=file), entry, CPU) == card


def test_another_file_is_refused_and_nothing_stored(
    file: Path, spec: ImportedTeacher, entry: StoreEntry
) -> None:
    torch.save({}, file)
    with pytest.raises(TeacherError, match=f"{sha256_of(file)}, but {spec.sha256} was expected"):
        import_teacher(spec, poor(file=file), entry, CPU)
    file.unlink()
    with pytest.raises(TeacherError, match=r"given\.pth does not exist"):
        import_teacher(spec, poor(file=file), entry, CPU)
    assert list(entry.folder.iterdir()) == []


def test_a_file_of_another_network_is_refused_and_nothing_stored(
    file: Path, spec: ImportedTeacher, entry: StoreEntry
) -> None:
    other = spec.model_copy(update={"network": "resnet14"})
    with pytest.raises(TeacherError, match=r"given\.pth for resnet14 does not fit: missing \d+"):
        import_teacher(other, poor(file=file), entry, CPU)
    assert list(entry.folder.iterdir()) == []


def test_a_url_is_fetched_checked_and_named_as_the_origin(
    file: Path, spec: ImportedTeacher, entry: StoreEntry
) -> None:
    source = poor(url=file.as_uri(), sha256=spec.sha256)
    assert import_teacher(spec, source, entry, CPU).origin == file.as_uri()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder for checkpoints, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_url_that_does_not_answer_is_an_error_that_names_it_and_a_way_round(
    file: Path, spec: ImportedTeacher, entry: StoreEntry, hub: Path
) -> None:
    url = (file.parent / "gone.pth").as_uri()
    with pytest.raises(TeacherError, match=r"gone\.pth cannot be downloaded") as error:
        import_teacher(spec, poor(url=url, sha256=spec.sha256), entry, CPU)
    assert str(error.value).endswith(f"copy it to {hub / 'gone.pth'}")
    assert entry.card() is None


def test_a_file_in_torch_hubs_folder_is_taken_and_nothing_downloaded(
    file: Path, spec: ImportedTeacher, entry: StoreEntry, hub: Path
) -> None:
    file.rename(hub / "there.pth")
    url = "https://nowhere.invalid/models/there.pth?download=1"
    card = import_teacher(spec, poor(url=url, sha256=spec.sha256), entry, CPU)
    assert (card.origin, card.source_sha256) == (url, spec.sha256)
    assert (hub / "there.pth").is_file()


def test_another_file_in_torch_hubs_folder_is_refused_by_its_name(
    spec: ImportedTeacher, entry: StoreEntry, hub: Path
) -> None:
    (hub / "there.pth").write_bytes(b"half a downl\xff")
    source = poor(url="https://nowhere.invalid/there.pth", sha256=spec.sha256)
    with pytest.raises(
        TeacherError, match=f"{hub / 'there.pth'} has sha256 .* is another file, or"
    ):
        import_teacher(spec, source, entry, CPU)


def test_the_head_of_a_hash_is_enough_and_the_card_has_the_whole(
    file: Path, spec: ImportedTeacher, tmp_path: Path
) -> None:
    short = spec.model_copy(update={"sha256": spec.sha256[:8]})
    assert short.identity != spec.identity
    entry = Store(tmp_path).teacher(short.identity)
    card = import_teacher(short, poor(file=file, sha256=spec.sha256[:8]), entry, CPU)
    assert card.source_sha256 == spec.sha256
    other = f"{(int(spec.sha256[:8], 16) + 1) % 16**8:08x}"
    wrong = spec.model_copy(update={"sha256": other})
    entry = Store(tmp_path).teacher(wrong.identity)
    with pytest.raises(TeacherError, match=f"but {other} was expected"):
        import_teacher(wrong, poor(file=file, sha256=other), entry, CPU)


@pytest.mark.parametrize("sha256", ["", "0676ba6", "z" * 8, "0" * 65])
def test_a_hash_has_at_least_eight_hexadecimal_digits(sha256: str) -> None:
    with pytest.raises(ValueError, match="sha256"):
        ImportSource(url="https://nowhere.invalid/x.pth", sha256=sha256)


# Loading.


def test_a_loaded_teacher_is_the_stored_one_frozen(
    file: Path, spec: ImportedTeacher, entry: StoreEntry, weights: dict[str, Tensor]
) -> None:
    card = import_teacher(spec, poor(file=file), entry, CPU)
    loaded = load_teacher_network(entry, CPU, 10)
    assert loaded.card == card
    assert not any(module.training for module in loaded.network.modules())
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    loaded.network(torch.randn(4, 3, 32, 32))
    assert same(loaded.network.state_dict(), weights)


def test_a_teacher_that_is_missing_or_damaged_is_refused(
    file: Path, spec: ImportedTeacher, entry: StoreEntry
) -> None:
    with pytest.raises(TeacherError, match=f"{entry.id} is not in the store"):
        load_teacher_network(entry, CPU, 10)
    import_teacher(spec, poor(file=file), entry, CPU)
    content = bytearray(entry.weights_path.read_bytes())
    content[-1] ^= 1
    entry.weights_path.write_bytes(content)
    with pytest.raises(TeacherError, match=r"weights\.safetensors has sha256 .* damaged or"):
        load_teacher_network(entry, CPU, 10)


def test_a_teacher_whose_weights_were_removed_is_refused(
    file: Path, spec: ImportedTeacher, entry: StoreEntry
) -> None:
    import_teacher(spec, poor(file=file), entry, CPU)
    entry.weights_path.unlink()
    with pytest.raises(TeacherError, match=r"weights\.safetensors"):
        load_teacher_network(entry, CPU, 10)
