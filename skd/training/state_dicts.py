"""State dicts in the usual formats, read from a file without running any code in it.

A file may also have options, metrics or the state of an optimiser. Only their plain values are
read: objects of classes that are known to have options or numbers become empty objects, and any
other class is refused.
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

# Keys of a state dict within a checkpoint. If several have one, the first is used.
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
    """Replaces an object beside the weights, such as a NumPy scalar, without its content."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _IgnoredMapping:
    """Replaces an object beside the weights that fills itself like a dict by a dict."""

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
    """Read the weights of a checkpoint, in one of the usual formats.

    The file is a state dict, a dict that has one under a key such as ``model`` or ``state_dict``,
    or a safetensors file of any name. Keys are returned as they are in the file. No code in the
    file is run.

    Raises:
        TeacherError: it is not such a file. Says what it is, and how to save the weights.
    """
    if not path.exists():
        raise TeacherError(f"the checkpoint {path} does not exist")
    try:
        data: Any = load_file(path) if _is_safetensors(path) else _load(path)
    except Exception as error:  # damaged files raise errors of any type
        raise TeacherError(
            f"{path} is no checkpoint that can be read safely: {_reason(path, error)}"
        ) from error
    weights = _select_state_dict(data, path)
    for name, tensor in weights.items():
        if problem := _not_plain(tensor):
            raise TeacherError(
                f"{path}: '{name}' is {problem}; weights must be dense floating-point tensors. "
                "Save the network before it was converted, or convert it back"
            )
    _check_single(weights, path)
    return weights


def strip_common_prefix(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without a prefix that all keys share, such as ``module.``.

    Args:
        weights: a state dict.
        own: state dict of the network, whose own keys do not change.
    """
    while weights and not weights.keys() & own.keys():
        heads = {name.partition(".")[0] for name in weights}
        if len(heads) > 1 or any("." not in name for name in weights):
            break
        weights = {name.partition(".")[2]: tensor for name, tensor in weights.items()}
    return weights


def add_missing_counters(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with the batch counters that BatchNorm has since PyTorch 0.4.1."""
    missing = {name: own[name] for name in own if name not in weights and is_counter(name)}
    return {**weights, **missing}


def is_counter(name: str) -> bool:
    """Return whether an entry is the batch counter of a BatchNorm layer."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def describe_precision(weights: dict[str, Tensor]) -> str:
    """Return the precisions of floating-point weights other than float32, as text; else ""."""
    kinds = {str(t.dtype) for t in weights.values() if t.is_floating_point()} - {"torch.float32"}
    return " and ".join(sorted(kind.removeprefix("torch.") for kind in kinds))


def describe_nonfinite(tensors: dict[str, Tensor]) -> str | None:
    """Return the tensors with NaN or infinity, with counts; ``None`` if all values are finite."""
    bad = {
        name: (count, tensor.numel())
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and (count := int((~tensor.isfinite()).sum()))
    }
    if not bad:
        return None
    counts = [f"{name} ({count} of {total} values)" for name, (count, total) in bad.items()]
    return join_first_names(counts)


def join_first_names(names: list[str]) -> str:
    """Return the first five names, separated by commas."""
    return f"{', '.join(names[:MAX_NAMES])}{', …' if len(names) > MAX_NAMES else ''}"


def _is_safetensors(path: Path) -> bool:
    """Return whether a file starts like safetensors: length of the header, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER


def _load(path: Path) -> Any:
    with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other pickles than torch's, which fail anyway
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(path: Path, error: Exception) -> str:
    """Return why a file could not be read and what to do, in one line.

    The message of torch would explain how to load it unsafely.
    """
    if isinstance(error, OSError) and error.strerror and not path.is_dir():
        return error.strerror
    if (kind := describe_file(path)) is not None:
        return f"it is {kind}"
    match = re.search(r"GLOBAL (\S+)", str(error))
    if match is not None:
        return f"it holds an object of {match[1]}, which only its code could read; {SAVE_ANEW}"
    return f"it is incomplete, damaged or no file of torch.save; {DOWNLOAD_AGAIN}, or {SAVE_ANEW}"


def _select_state_dict(data: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in the content of a file.

    Raises:
        TeacherError: there is none, or there are two.
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
        content = type(data).__name__
    elif not data:
        content = "an empty dict"
    else:
        content = f"keys {join_first_names([str(key) for key in data])}"
        tensors = [isinstance(value, Tensor) for value in data.values()]
        if any(tensors):
            odd = list(data)[tensors.index(False)]
            content += f"; '{odd}' is no tensor but {type(data[odd]).__name__}"
    raise TeacherError(f"{path} holds no state dict (found {content}); {SAVE_ANEW}")


def _is_state_dict(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and bool(data)
        and all(isinstance(value, Tensor) for value in data.values())
    )


def _not_plain(tensor: Tensor) -> str | None:
    """Return why a tensor cannot be a weight; ``None`` if it can."""
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
    """Check that weights belong to one network.

    Raises:
        TeacherError: they belong to a student and its teacher.
    """
    tops = {tuple(part for part in name.split(".")[:2] if part != "module") for name in weights}
    if {"student", "teacher"} <= {top[0] for top in tops if top}:
        raise TeacherError(
            f"{path} holds a student and its teacher, as mdistiller's 'latest' does; give the file "
            "of the student alone: student_best or student_latest"
        )
