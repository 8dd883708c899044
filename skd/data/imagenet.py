"""ImageNet (ILSVRC 2012; Russakovsky et al. 2015), from its files in folders by class.

It may not be passed on, so that nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

from skd.data.images import DatasetFacts, Images
from skd.data.photos.folders import load_folder

FACTS = DatasetFacts(
    num_classes=1000, train_images=1_281_167, test_images=50_000, size=224, photos=True
)
ADVICE = (
    "Put the official files there, unpacked: imagenet/train/<WordNet id>/*.JPEG and "
    "imagenet/val/<WordNet id>/*.JPEG (the training archive holds one archive a class; the "
    "validation photos come in one folder and have to be sorted), or point SKD_DATA at the folder "
    "that holds imagenet. See docs/data.md"
)


def load(root: Path) -> Images:
    """Return ImageNet from ``root/imagenet``; its validation photos are the test images.

    The classes are in the order of their WordNet ids, which is the order of torchvision's weights.

    Raises:
        DataError: not there, or not whole.
    """
    return load_folder(root / "imagenet", FACTS, "ImageNet", ADVICE)
