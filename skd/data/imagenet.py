"""ImageNet (ILSVRC 2012; Russakovsky et al. 2015), from photos in one folder per class.

Its licence forbids redistribution, so nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

from skd.data.images import DatasetFacts, Images
from skd.data.photos.folders import load_folder

FACTS = DatasetFacts(
    num_classes=1000, train_images=1_281_167, test_images=50_000, size=224, photos=True
)
ADVICE = (
    "Unpack the official files there: imagenet/train/<WordNet id>/*.JPEG and "
    "imagenet/val/<WordNet id>/*.JPEG (the training archive contains one archive per class; the "
    "validation photos come in one folder and must be sorted by class), or set SKD_DATA to the "
    "folder that contains imagenet. See docs/data.md"
)


def load(root: Path) -> Images:
    """Return ImageNet from ``root/imagenet``; its validation photos are the test images.

    The classes are in the order of their WordNet ids, as in torchvision's weights.

    Raises:
        DataError: the photos are missing or incomplete.
    """
    return load_folder(root / "imagenet", FACTS, "ImageNet", ADVICE)
