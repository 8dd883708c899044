"""State dicts as the field saves them: read from a file, without running what is in it.

Beside the weights there may be anything that people save with them: options, metrics, the
optimiser. Of these only plain values are read; every object of a class that is known to hold
options or numbers becomes an empty one, and any other class is refused.
"""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from skd.common.errors import TeacherError
from skd.training.file_kinds import DOWNLOAD_AGAIN, SAVE_ANEW, describe_file

# What a state dict is found under. Of several that hold one, the first.
WRAPPERS = (
    "model",
    "state_dict",
    "model_state_dict",
    "net",
    "params",
    "weights",
    "student",
    "teacher",
    "module",
    "model_state",
)
MAX_WRAPPER_DEPTH = 4  # wrappers within each other
MAX_NAMES = 5  # keys in a message
_SAFETENSORS_HEADER = 100_000_000  # bytes, at most


class _Ignored:
    """Stands for an object beside the weights, such as a NumPy scalar: nothing of it is kept."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _IgnoredMapping:
    """Makes a dict of what stands beside the weights and fills itself like one."""

    def __new__(cls, *_: Any, **__: Any) -> OrderedDict:
        return OrderedDict()


_OBJECTS = (
    "argparse.Namespace",  # RepDistiller, torchdistill, timm
    "types.SimpleNamespace",
    *(
        f"numpy.{name}"
        for core in ("core", "_core")  # before NumPy 2, and since
        for name in (f"{core}.multiarray.scalar", f"{core}.multiarray._reconstruct")
    ),
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"pathlib{module}.{kind}Path"
        for module in ("", "._local")
        for kind in ("", "Posix", "PurePosix", "Windows", "PureWindows")
    ),
    *(f"builtins.{name}" for name in ("list", "dict", "int", "float")),  # of a defaultdict
    "datetime.datetime",
    "datetime.timedelta",
    "torch.torch_version.TorchVersion",
)
_MAPPINGS = (
    "collections.defaultdict",
    "yacs.config.CfgNode",  # mdistiller
    "easydict.EasyDict",
    "addict.addict.Dict",
    "munch.Munch",
    "ml_collections.config_dict.config_dict.ConfigDict",
    *(  # Lightning, by its versions
        f"{package}.AttributeDict"
        for package in (
            "pytorch_lightning.utilities.parsing",
            "lightning.pytorch.utilities.parsing",
            "lightning.fabric.utilities.data",
            "lightning_fabric.utilities.data",
        )
    ),
)
_STAND_INS = [
    *((_Ignored, name) for name in _OBJECTS),
    *((_IgnoredMapping, name) for name in _MAPPINGS),
]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's weights, in the forms in which the field saves them.

    A bare state dict, or one under a key such as ``model`` or ``state_dict``, with anything plain
    beside it; safetensors files, whatever their name, too. Keys are returned as they are written.
    No code in the file is run.

    Raises:
        TeacherError: not such a file; says what it is, and how to save the weights anew.
    """
    if not path.exists():
        raise TeacherError(f"the checkpoint {path} is not there")
    try:
        data: Any = load_file(path) if _is_safetensors(path) else _load(path)
    except Exception as error:  # whatever a damaged file may raise
        raise TeacherError(
            f"{path} is no checkpoint that can be read safely: {_reason(path, error)}"
        ) from error
    weights = _found(data, path)
    for name, tensor in weights.items():
        if problem := _not_plain(tensor):
            raise TeacherError(
                f"{path}: '{name}' is {problem}; weights must be dense floating-point tensors. "
                "Save the network before it was converted, or convert it back"
            )
    _check_single(weights, path)
    return weights


def strip_common_prefix(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without what wrappers put before every key, such as ``module.``.

    Args:
        weights: a state dict.
        own: the network's, whose own keys stay as they are.
    """
    while weights and not weights.keys() & own.keys():
        heads = {name.partition(".")[0] for name in weights}
        if len(heads) > 1 or any("." not in name for name in weights):
            break
        weights = {name.partition(".")[2]: tensor for name, tensor in weights.items()}
    return weights


def add_missing_counters(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with the batch counters that BatchNorm had not before PyTorch 0.4.1."""
    missing = {name: own[name] for name in own if name not in weights and is_counter(name)}
    return {**weights, **missing}


def is_counter(name: str) -> bool:
    """Whether an entry only counts the batches that a BatchNorm layer has seen."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def describe_precision(weights: dict[str, Tensor]) -> str:
    """Return the precisions other than float32 of floating-point weights, in words; or nothing."""
    kinds = {str(t.dtype) for t in weights.values() if t.is_floating_point()} - {"torch.float32"}
    return " and ".join(sorted(kind.removeprefix("torch.") for kind in kinds))


def describe_nonfinite(tensors: dict[str, Tensor]) -> str | None:
    """Return which tensors hold NaN or infinity, and how many of their values; or none."""
    bad = {
        name: (count, tensor.numel())
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and (count := int((~tensor.isfinite()).sum()))
    }
    if not bad:
        return None
    said = [f"{name} ({count} of {of} values)" for name, (count, of) in bad.items()]
    return join_first_names(said)


def join_first_names(names: list[str]) -> str:
    """Return names with commas, the first five."""
    return f"{', '.join(names[:MAX_NAMES])}{', …' if len(names) > MAX_NAMES else ''}"


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the header's length, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER


def _load(path: Path) -> Any:
    with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other pickles than torch's, which fail anyway
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(path: Path, error: Exception) -> str:
    """Return why a file could not be read and what to do, in a line, in our own words.

    Torch's own say how to load it unsafely.
    """
    if isinstance(error, OSError) and error.strerror and not path.is_dir():
        return error.strerror
    if (kind := describe_file(path)) is not None:
        return f"it is {kind}"
    said = re.search(r"GLOBAL (\S+)", str(error))
    if said is not None:
        return f"it holds an object of {said[1]}, which only its code could read; {SAVE_ANEW}"
    return f"it is incomplete, damaged or no file of torch.save; {DOWNLOAD_AGAIN}, or {SAVE_ANEW}"


def _found(data: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what a file holds.

    Raises:
        TeacherError: there is none, or there are two and neither is the obvious one.
    """
    for _ in range(MAX_WRAPPER_DEPTH):
        if _is_state_dict(data) or not isinstance(data, dict):
            break
        inside = [key for key in WRAPPERS if isinstance(data.get(key), dict)]
        if not inside:
            break
        if {"student", "teacher"} <= set(inside):
            raise TeacherError(f"{path} holds a student and a teacher; save one of them alone")
        data = data[next((key for key in inside if _is_state_dict(data[key])), inside[0])]
    if _is_state_dict(data):
        return {str(name): tensor for name, tensor in data.items()}
    if not isinstance(data, dict):
        found = type(data).__name__
    elif not data:
        found = "an empty dict"
    else:
        found = f"keys {join_first_names([str(key) for key in data])}"
        tensors = [isinstance(value, Tensor) for value in data.values()]
        if any(tensors):
            odd = list(data)[tensors.index(False)]
            found += f"; '{odd}' is no tensor but {type(data[odd]).__name__}"
    raise TeacherError(f"{path} holds no state dict (found {found}); {SAVE_ANEW}")


def _is_state_dict(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and bool(data)
        and all(isinstance(value, Tensor) for value in data.values())
    )


def _not_plain(tensor: Tensor) -> str | None:
    """Return what a tensor is that a network's weights cannot be, or none."""
    if tensor.is_meta:
        return "a meta tensor, without values"
    if tensor.is_quantized:
        return "a quantised tensor"
    if tensor.layout != torch.strided:
        return f"a sparse tensor ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_complex():
        return "complex"
    if tensor.is_floating_point() and tensor.element_size() < 2:
        return f"of type {str(tensor.dtype).removeprefix('torch.')}"
    return None


def _check_single(weights: dict[str, Tensor], path: Path) -> None:
    """Refuse the weights of a whole distiller.

    Raises:
        TeacherError: they are a student's and its teacher's.
    """
    tops = {tuple(part for part in name.split(".")[:2] if part != "module") for name in weights}
    if {"student", "teacher"} <= {top[0] for top in tops if top}:
        raise TeacherError(
            f"{path} holds a student and its teacher, as mdistiller's 'latest' does; give the file "
            "of the student alone: student_best or student_latest"
        )
