"""An expansion's sizes and operations, against counts by hand and by torch."""

import pytest
import torch
from torch import nn

from skd.data import dataset_facts, dataset_names, load_dataset
from skd.expansion.dry_run import network_profile, objective_profile
from skd.models import build_model
from skd.models.accounting import count_layers, count_parameters, multiply_adds
from skd.study.expansion import Expansion, ImageInfo
from skd.study.expansion_files import read_expansion_file, write_expansion
from skd.study.spec import DatasetSpec
from tests.builders.tiny import study


def test_a_pass_is_counted_by_layer() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    )
    with count_layers(model) as work:
        model(torch.zeros(1, 3, 4, 4))
    model(torch.zeros(1, 3, 4, 4))  # not counted any more
    assert work.multiply_adds == 8 * 16 * 3 * 9 + 128 * 5 == multiply_adds(model, (3, 4, 4))
    assert work.activations == 128 + 128 + 5
    assert work.layers == 3


NEED_FILES = {"cifar100", "imagefolder", "imagenet"}  # photos': tests/data/test_photo_folders.py


@pytest.mark.parametrize("name", sorted(set(dataset_names()) - NEED_FILES))
@pytest.mark.parametrize("split", ["test", "validation"])
def test_facts_are_what_is_loaded(name: str, split: str) -> None:
    spec = DatasetSpec(name=name, split=split, train_limit=50)
    known, images = dataset_facts(spec), load_dataset(spec)
    assert known.train_images == len(images.train_labels)
    assert known.test_images == len(images.test_labels)
    assert images.train_images.shape[1:] == (3, known.size, known.size)


def test_an_expansion_knows_its_networks_and_images(tmp_path) -> None:
    expansion = study()
    assert expansion.images == ImageInfo(
        train_images=80, test_images=797, size=16, channels=3, classes=10, views=25
    )
    model = build_model("resnet8", 10)
    (known,) = expansion.networks.values()
    assert [*expansion.networks] == ["resnet8"]
    assert known.parameters == count_parameters(model)
    assert known.multiply_adds == multiply_adds(model, (3, 16, 16))
    assert known.pooled == model.fc.in_features
    assert known.layers == 9 + 9 + 1  # with a projection in two of the three stages
    assert read_expansion_file(write_expansion(expansion, tmp_path)) == (expansion)


@pytest.fixture(scope="module")
def methods() -> Expansion:
    return study(methods=["student", "kd", "crd", "reviewkd", "skd", "skd+reviewkd"])


def extra(expansion: Expansion, method: str):
    return next(cell.extra for cell in expansion.cells if cell.method == method)


def test_a_method_without_modules_brings_nothing(methods) -> None:
    for name in ("student", "kd"):
        assert extra(methods, name).model_dump() == {
            "parameters": 0,
            "bytes": 0,
            "multiply_adds": 0,
            "views": 1,
        }


def test_a_memory_bank_counts_its_memory_and_each_of_its_numbers_once(methods) -> None:
    added = extra(methods, "crd")
    width, pooled, images = 128, 64, 80
    linear = 2 * pooled * width
    assert added.parameters == linear + 2 * width
    labels = 8 * images
    assert added.bytes == 4 * added.parameters + 4 * (2 * images * width + 2) + labels
    assert added.multiply_adds == linear + 2 * images * width + 2


def test_convolutions_count_where_they_are_applied(methods) -> None:
    added = extra(methods, "reviewkd")
    # More than once per weight, because kernels slide.
    assert added.multiply_adds > 5 * added.parameters
    both, alone = extra(methods, "skd+reviewkd"), extra(methods, "skd")
    assert both.multiply_adds == added.multiply_adds + alone.multiply_adds
    assert both.parameters == added.parameters + alone.parameters


def test_a_counted_convolution_is_what_a_real_pass_does() -> None:
    from skd.expansion.dry_run import _build, _context
    from skd.losses.term import Batch
    from skd.randomness import Draws

    expansion = study(methods=["reviewkd"])
    cell, known = expansion.cells[0], dataset_facts(expansion.dataset)
    context = _context("resnet8", "resnet8", known)
    objective = _build(cell.spec.method, context).to_empty(device="cpu").eval()
    image = torch.zeros(1, dtype=torch.int64)
    objective.begin_epoch(1)
    with torch.no_grad(), count_layers(objective) as work:
        draws = Draws(0, torch.device("cpu"))
        objective(Batch(context.student, context.teacher, image, image, 1, draws))
    assert objective_profile(cell.spec, known).multiply_adds == work.multiply_adds


def test_facts_are_not_part_of_an_identity() -> None:
    expansion = study()
    for cell in expansion.cells:
        assert "extra" not in cell.spec.model_dump()
        assert all(cell.run(seed).identity == name for seed, name in cell.runs.items())


def test_a_networks_facts_follow_the_images_size() -> None:
    small, large = (
        dataset_facts(DatasetSpec(name="digits")),
        dataset_facts(DatasetSpec(name="synthetic")),
    )
    assert (
        network_profile("resnet8", small).activations
        < network_profile("resnet8", large).activations
    )
    assert network_profile("resnet8", small).layers == network_profile("resnet8", large).layers
