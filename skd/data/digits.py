"""The 1,797 handwritten digits of scikit-learn (UCI), resized for CIFAR's networks."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from skd.data.images import DatasetFacts, Images, stratified_order

TRAIN_IMAGES = 1000
SIZE = 16  # enlarged from 8: the smallest size that leaves every network's last map 2x2 or larger
PAD = 2
FACTS = DatasetFacts(
    num_classes=10, train_images=TRAIN_IMAGES, test_images=797, size=SIZE, pad=PAD, flip=False
)


def load(root: Path) -> Images:
    """Load the digits: 1,000 training and 797 test images, (3, 16, 16), a fixed stratified split.

    ``root`` is not used: scikit-learn includes the data.
    """
    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    grey = torch.from_numpy(digits.images).float()[:, None] / 16 * 255
    large = F.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    pixels = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    order = stratified_order(labels, "digits test split")
    train, test = order[:TRAIN_IMAGES], order[TRAIN_IMAGES:]
    return Images(
        train_images=pixels[train],
        train_labels=labels[train],
        test_images=pixels[test],
        test_labels=labels[test],
        classes=tuple(str(name) for name in digits.target_names),
        mean=(0.306,) * 3,
        std=(0.319,) * 3,
        pad=PAD,
        flip=False,
    )
