"""A network as an ONNX file, compared with PyTorch before it is written."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from skd.common.errors import SkdError
from skd.common.extras import require_extra
from skd.common.files import sha256_of, write_atomically
from skd.exporting.card import ExportedFile
from skd.randomness import seeded

OPSET = 18  # of the ONNX standard; onnxruntime 1.14 and newer run it
TOLERANCE = 1e-3  # largest difference of the logits, relative to the largest logit


class OnnxError(SkdError):
    """A network cannot be written as ONNX. The message says why."""


def write_onnx(network: nn.Module, size: int, path: Path) -> ExportedFile:
    """Write a network in evaluation mode, for batches of any size.

    Args:
        network: maps images (N, 3, H, W) to logits.
        size: height and width of the images, which are fixed in the file.
        path: the file to write.

    Raises:
        MissingExtraError: the packages of the extra ``onnx`` are not installed.
        OnnxError: the network cannot be converted, or gives other logits in onnxruntime.
    """
    require_extra("onnx", "--onnx")
    with seeded(0, "images for ONNX"):
        images = torch.randn(3, 3, size, size)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / path.name
        try:
            _convert(network, images[:2], file)
            difference = max(_difference(network, images[:count], file) for count in (1, 3))
        except Exception as error:  # the converter and the runtime raise errors of any type
            text = " ".join(str(error).split())[:300]
            raise OnnxError(f"{path.name}: {type(error).__name__}: {text}") from error
        if not difference <= TOLERANCE:
            raise OnnxError(
                f"{path.name}: the logits of onnxruntime differ by {difference:.1e} of the largest "
                f"logit, more than {TOLERANCE:.0e}; use the .pth file"
            )
        write_atomically(path, file.read_bytes())
    return ExportedFile(
        name=path.name,
        format="onnx",
        sha256=sha256_of(path),
        opset=OPSET,
        largest_difference=difference,
    )


def _convert(network: nn.Module, images: Tensor, file: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the converter's own code
        torch.onnx.export(
            network,
            (images,),
            file,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _difference(network: nn.Module, images: Tensor, file: Path) -> float:
    """Return the largest difference from PyTorch's logits, relative to the largest logit."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = network(images)
    return float((torch.from_numpy(logits) - expected).abs().max() / expected.abs().max())
