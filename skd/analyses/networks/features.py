"""Two-dimensional embeddings of the pooled features of some test images, by t-SNE."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from skd.analyses.errors import UnusableError
from skd.common.errors import TeacherError
from skd.data import load_evaluation_pixels, make_views
from skd.data.images import Images
from skd.losses.methods import classifier_terms
from skd.models import FeatureNetwork
from skd.study.spec import MethodSpec
from skd.training.network_loading import build_from_state_dict

CLASSES = 10
IMAGES_PER_CLASS = 50
FEATURE_BATCH = 100


def select_images(labels: np.ndarray) -> np.ndarray:
    """Return the indices of the embedded test images, (P,), by class, then in order.

    They are the first 50 images (or fewer) of each of the first 10 classes.

    Args:
        labels: the test images' labels, (M,).
    """
    return np.concatenate(
        [np.flatnonzero(labels == label)[:IMAGES_PER_CLASS] for label in range(CLASSES)]
    )


def load_network(weights: bytes, name: str, classes: int) -> FeatureNetwork:
    """Return a network with stored weights, in evaluation mode.

    Raises:
        UnusableError: the weights are not this network's.
    """
    try:
        return build_from_state_dict(name, classes, load(weights), "its weights").eval()
    except (SafetensorError, TeacherError) as error:
        raise UnusableError(str(error)) from error


def check_classifier(method: MethodSpec) -> None:
    """Check that a method's students classify by their own pooled features.

    Raises:
        UnusableError: a term replaces the classifier; the features that it reads are others.
    """
    for term in classifier_terms(method):
        raise UnusableError(
            f"{term} replaces the student's classifier, which does not read the student's pooled "
            "features"
        )


@torch.no_grad()
def pooled_features(network: FeatureNetwork, images: Images, indices: np.ndarray) -> np.ndarray:
    """Return the pooled features that the classifier reads of some test images, (P, D) float32."""
    pixels = load_evaluation_pixels(images, torch.from_numpy(indices))
    # The views are needed for their normalisation only; they would copy all training images.
    views = make_views(replace(images, train_images=images.test_images[:1]), torch.device("cpu"))
    features = [
        network.forward_features(views.normalise(batch)).pooled
        for batch in pixels.split(FEATURE_BATCH)
    ]
    return torch.cat(features).numpy()


def tsne_embedding(features: np.ndarray) -> np.ndarray:
    """Return the t-SNE of features (P, D), (P, 2) float32, with mean 0 and largest coordinate 1.

    The scale of a t-SNE has no meaning; with a common scale, panels can be compared. The embedding
    of identical features is 0.

    Raises:
        UnusableError: features are not finite, or there are fewer than four images.
    """
    count = len(features)
    if count < 4:
        raise UnusableError(f"t-SNE needs at least four images, got {count} test images")
    if not np.isfinite(features).all():
        raise UnusableError("its features are not finite")
    if not np.ptp(features, axis=0).any():  # the initialisation by PCA would divide by 0
        return np.zeros((count, 2), np.float32)
    tsne = TSNE(init="pca", random_state=0, perplexity=min(30, (count - 1) / 3))
    with threadpool_limits(1):  # the steps are so small that threads only wait for each other
        embedding = tsne.fit_transform(features.astype(np.float64))
    embedding = embedding - embedding.mean(axis=0)
    return (embedding / np.abs(embedding).max()).astype(np.float32)


def network_tsne(weights: bytes, network: str, images: Images) -> np.ndarray:
    """Return the t-SNE of a network's pooled features of the selected test images, (P, 2).

    Args:
        weights: the network's stored weights.
        network: the network's name.
        images: the data set.

    Raises:
        UnusableError: as `load_network` and `tsne_embedding`.
    """
    model = load_network(weights, network, images.num_classes)
    return tsne_embedding(pooled_features(model, images, select_images(images.test_labels.numpy())))
