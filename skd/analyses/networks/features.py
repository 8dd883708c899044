"""Pooled features of a few test images in the plane, by t-SNE."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from skd.analyses.stored_networks import UnusableError
from skd.common.errors import TeacherError
from skd.data import load_evaluation_pixels, make_views
from skd.data.images import Images
from skd.models import FeatureNetwork
from skd.training.network_loading import build_from_state_dict

CLASSES = 10
IMAGES_PER_CLASS = 50
FEATURE_BATCH = 100


def select_images(labels: np.ndarray) -> np.ndarray:
    """Return the places of the test images that are shown, (P,): by class, then in order.

    The first 50 of each of the first 10 classes, or as many as there are.

    Args:
        labels: of the test images, (M,).
    """
    return np.concatenate(
        [np.flatnonzero(labels == label)[:IMAGES_PER_CLASS] for label in range(CLASSES)]
    )


def load_network(weights: bytes, name: str, classes: int) -> FeatureNetwork:
    """Return a network with stored weights, in evaluation mode.

    Raises:
        UnusableError: they are not this network's.
    """
    try:
        return build_from_state_dict(name, classes, load(weights), "its weights").eval()
    except (SafetensorError, TeacherError) as error:
        raise UnusableError(str(error)) from error


@torch.no_grad()
def pooled_features(network: FeatureNetwork, images: Images, indices: np.ndarray) -> np.ndarray:
    """Return the pooled features that the classifier reads of some test images, (P, D) float32."""
    pixels = load_evaluation_pixels(images, torch.from_numpy(indices))
    # Only for its normalisation: the training images, which it would copy, are not asked for.
    views = make_views(replace(images, train_images=images.test_images[:1]), torch.device("cpu"))
    found = [
        network.forward_features(views.normalise(p)).pooled for p in pixels.split(FEATURE_BATCH)
    ]
    return torch.cat(found).numpy()


def tsne_embedding(features: np.ndarray) -> np.ndarray:
    """Return t-SNE of features (P, D) in the plane, (P, 2) float32: mean 0, largest coordinate 1.

    The scale of a t-SNE means nothing; a common one lets panels be compared. Features that are all
    the same lie at 0.

    Raises:
        UnusableError: features that are not finite, or fewer than four images.
    """
    count = len(features)
    if count < 4:
        raise UnusableError(f"t-SNE of {count} test images shows nothing")
    if not np.isfinite(features).all():
        raise UnusableError("its features are not finite")
    if not np.ptp(features, axis=0).any():  # the start by PCA would divide by 0
        return np.zeros((count, 2), np.float32)
    tsne = TSNE(init="pca", random_state=0, perplexity=min(30, (count - 1) / 3))
    with threadpool_limits(1):  # its steps are so small that threads would wait for each other
        found = tsne.fit_transform(features.astype(np.float64))
    found = found - found.mean(axis=0)
    return (found / np.abs(found).max()).astype(np.float32)


def network_tsne(weights: bytes, network: str, images: Images) -> np.ndarray:
    """Return the t-SNE of a network's pooled features of the chosen test images, (P, 2).

    Args:
        weights: its stored weights.
        network: its name.
        images: the data set.

    Raises:
        UnusableError: as `load_network` and `tsne_embedding`.
    """
    model = load_network(weights, network, images.num_classes)
    return tsne_embedding(pooled_features(model, images, select_images(images.test_labels.numpy())))
