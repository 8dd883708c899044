"""The checks of a data set: sound ones pass, and each fault is found by the check meant for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch

from skd.authoring import data_checks
from skd.authoring.data_checks import check_data_contract
from skd.data import load_dataset
from skd.data.images import DataError, Images
from skd.study.spec import DatasetSpec


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_the_suites_data_sets_are_sound(name: str) -> None:
    results = list(check_data_contract(name))
    assert [result for result in results if result.problem] == []
    assert any("chance level 10.00 %" in result.note for result in results)


def first_labels(images: Images, value: int) -> torch.Tensor:
    return torch.cat([torch.tensor([value]), images.train_labels[1:]])


def shared(images: Images) -> torch.Tensor:
    return torch.cat([images.train_images[:50], images.test_images[50:]])


FAULTS: dict[str, tuple[Callable[[Images], dict[str, Any]], str]] = {
    "images": (lambda i: {"train_images": i.train_images.float()}, "must be uint8"),
    "labels": (lambda i: {"train_labels": first_labels(i, 10)}, "must be 0 to 9, but are 0 to 10"),
    "FACTS": (lambda i: {"pad": 4}, "pad is 2, but load gives 4"),
    "mean and std": (lambda i: {"mean": (78.0,) * 3}, "mean is 78.000"),
    "test images are new": (
        lambda i: {"test_images": shared(i)},
        "of 797 test images are also training images",
    ),
}


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_found(check: str) -> None:
    change, message = FAULTS[check]
    with mock.patch.object(data_checks, "load_dataset", lambda spec: changed(spec, change)):
        results = {result.check: result.problem for result in check_data_contract("digits")}
    assert message in results[check]


def changed(spec: DatasetSpec, change: Callable[[Images], dict[str, Any]]) -> Images:
    images = load_dataset(spec)
    return replace(images, **change(images))


def test_a_class_without_images_is_named() -> None:
    def without_three(images: Images) -> dict[str, Any]:
        labels = images.test_labels.clone()
        labels[labels == 3] = 4
        return {"test_labels": labels}

    with mock.patch.object(data_checks, "load_dataset", lambda spec: changed(spec, without_three)):
        results = {result.check: result.problem for result in check_data_contract("digits")}
    assert "test_labels: no image of class 3" in results["labels"]


def test_a_load_that_differs_is_found() -> None:
    def shuffled(images: Images) -> dict[str, Any]:
        order = torch.randperm(len(images.train_labels))
        return {
            "train_images": images.train_images[order],
            "train_labels": images.train_labels[order],
        }

    with mock.patch.object(data_checks, "load_dataset", lambda spec: changed(spec, shuffled)):
        results = {result.check: result.problem for result in check_data_contract("digits")}
    assert "runs would not repeat" in results["loads again"]


def test_a_sheets_folder_is_refused() -> None:
    with pytest.raises(DataError, match=r"a sheet's dataset\.folder"):
        list(check_data_contract("imagefolder"))
