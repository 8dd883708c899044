"""Files that are not fitting checkpoints give a one-line error with a remedy."""

import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skd.common.errors import TeacherError
from skd.models import build_model
from skd.training.network_loading import build_from_state_dict
from skd.training.state_dicts import read_state_dict


@pytest.fixture
def weights() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model("resnet8", 10).state_dict()


def below(prefix: str, weights: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict((f"{prefix}{name}", value) for name, value in weights.items())


# Unreadable files.


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False], ids=["torch", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "checkpoint.pth", tmp_path / "trace"
    data = {"model": {"weight": torch.zeros(1)}, "extra": Evil(trace)}
    if zipped:
        torch.save(data, path)
    else:
        path.write_bytes(pickle.dumps(data, protocol=2))
    with pytest.raises(
        TeacherError, match=r"checkpoint\.pth is no checkpoint that can be"
    ) as refused:
        read_state_dict(path)
    assert "\n" not in str(refused.value)
    assert not trace.exists()


def saved(data: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(data, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def numpy_saved(write: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer, np.zeros(3))
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3575002\n"
OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "pickled network": (lambda: saved(nn.Linear(2, 2)), r"whole pickled .*model\.state_dict\(\)"),
    "legacy pickled network": (lambda: saved(nn.Linear(2, 2), True), r"whole pickled network"),
    "TorchScript": (scripted, r"TorchScript archive; .*torch\.jit\.load"),
    "truncated": (lambda: saved(torch.zeros(999))[:2000], "incomplete or damaged; download"),
    "truncated legacy": (lambda: saved({"a": torch.zeros(999)}, True)[:2000], "is incomplete"),
    "Git LFS": (lambda: LFS, "git lfs pull"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>...", "web page"),
    "JSON": (lambda: json.dumps({"error": "not found"}).encode(), "JSON text"),
    "empty": (lambda: b"", "an empty file"),
    "text": (lambda: b"not a checkpoint", "text file"),
    "noise": (lambda: bytes(range(128, 256)) * 9, "incomplete, damaged or"),
    "other zip": (lambda: zipped("readme.txt", "weights.pth"), "unpack it if the checkpoint"),
    "Keras": (lambda: zipped("config.json", "model.weights.h5"), "Keras"),
    "npz": (lambda: numpy_saved(np.savez), r"\.npz"),
    "npy": (lambda: numpy_saved(np.save), r"\.npy"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5 file"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(99), "gzip archive; unpack"),
    "plain pickle": (lambda: pickle.dumps({"a": [1]}), "no file of torch.save"),
    "truncated safetensors": (lambda: (60).to_bytes(8, "little") + b'{"a":', "is incomplete"),
}


@pytest.mark.filterwarnings("error:Detected pickle protocol", "ignore:.*torch.jit")
@pytest.mark.parametrize("name", ["checkpoint.pth", "checkpoint.safetensors"])
@pytest.mark.parametrize("other", OTHERS)
def test_a_file_that_is_not_a_checkpoint_gives_one_line_that_says_what_it_is(
    tmp_path: Path, name: str, other: str
) -> None:
    make, message = OTHERS[other]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(TeacherError, match=f"{name} is no checkpoint .*{message}") as error:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    assert "safe_globals" not in str(error.value)


def test_folders_and_missing_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"gone\.pth does not exist"):
        read_state_dict(tmp_path / "gone.pth")
    with pytest.raises(TeacherError, match="a folder; name the file in it"):
        read_state_dict(tmp_path)
    (tmp_path / ".metadata").touch()
    with pytest.raises(TeacherError, match=r"distributed checkpoint; .*dcp_to_torch"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("data", "content"),
    [
        ({"optimizer": {"lr": 0.1}, "epoch": 3}, r"found keys optimizer, epoch\)"),
        ([torch.zeros(1)], r"found list\)"),
        ({}, r"found an empty dict\)"),
        (
            {"model": {"weight": torch.zeros(1), "name": "x"}},
            r"found keys weight, name; 'name' is no tensor but str\)",
        ),
    ],
)
def test_a_file_without_a_state_dict_says_what_it_holds(
    tmp_path: Path, data: Any, content: str
) -> None:
    torch.save(data, tmp_path / "checkpoint.pth")
    with pytest.raises(
        TeacherError, match=f"no state dict \\({content}; load it in an environment"
    ):
        read_state_dict(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda w: {"student": w, "teacher": w}, "a student and a teacher; save one"),
        (
            lambda w: {"model": below("module.student.", w) | below("module.teacher.", w)},
            "mdistiller's 'latest' .* student_best",
        ),
    ],
    ids=["two dicts", "latest"],
)
def test_a_student_with_its_teacher_is_refused(
    tmp_path: Path, weights: dict[str, Tensor], data: Any, message: str
) -> None:
    torch.save(data(weights), tmp_path / "latest")
    with pytest.raises(TeacherError, match=message):
        read_state_dict(tmp_path / "latest")


@pytest.mark.filterwarnings("ignore:.*uantiz")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t.to_sparse(), r"a sparse tensor \(sparse_coo\)"),
        (lambda t: t.to("meta"), "a meta tensor"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "a quantised tensor"),
        (lambda t: t.to(torch.complex64), "complex"),
        (lambda t: t.to(torch.float8_e4m3fn), "of type float8_e4m3fn"),
    ],
    ids=["sparse", "meta", "quantised", "complex", "float8"],
)
def test_other_tensors_than_plain_ones_are_refused_by_name(
    tmp_path: Path, weights: dict[str, Tensor], make: Callable[[Tensor], Tensor], message: str
) -> None:
    weights["fc.weight"] = make(weights["fc.weight"])
    torch.save(weights, tmp_path / "checkpoint.pth")
    with pytest.raises(TeacherError, match=f"'fc.weight' is {message}"):
        read_state_dict(tmp_path / "checkpoint.pth")


# Checkpoints that do not fit.


def test_another_networks_weights_say_which_network_they_fit(weights: dict[str, Tensor]) -> None:
    with pytest.raises(TeacherError, match=r"missing .*; it fits resnet8$"):
        build_from_state_dict("resnet14", 10, below("module.", weights), "it")
    with pytest.raises(TeacherError, match=r"missing .*; it fits resnet8 with 10 classes$"):
        build_from_state_dict("vgg8", 100, weights, "it")


def test_weights_for_other_classes_say_so(weights: dict[str, Tensor]) -> None:
    with pytest.raises(TeacherError, match="it is for 10 classes, and the data set has 100"):
        build_from_state_dict("resnet8", 100, weights, "it")


def test_integers_in_the_place_of_weights_are_named(weights: dict[str, Tensor]) -> None:
    weights["fc.bias"] = weights["fc.bias"].to(torch.int8)
    with pytest.raises(TeacherError, match=r"types 1: fc.bias is int8"):
        build_from_state_dict("resnet8", 10, weights, "it")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_var"])
def test_values_that_are_not_finite_are_named_and_counted(
    weights: dict[str, Tensor], name: str, value: float
) -> None:
    weights[name].view(-1)[:2] = value
    of = weights[name].numel()
    with pytest.raises(TeacherError, match=rf"NaN or infinity in {name} \(2 of {of} values\)\."):
        build_from_state_dict("resnet8", 10, weights, "it")
