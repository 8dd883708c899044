"""Fixtures: a trained study and its analysis."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from skd.analyses import cached_results
from skd.analyses.analyse import analyse_study
from skd.analyses.networks import examples, features
from skd.data import load_dataset as load_images
from skd.data.images import Images
from skd.study.expansion import Expansion
from tests.builders import tiny
from tests.builders.analyses import METHODS


@pytest.fixture(scope="session")
def expansion() -> Expansion:
    teacher = tiny.SHEET["teachers"]["teacher"]
    absent = {"network": "resnet8", "train": {"seed": 8, "recipe": {"epochs": 2, "milestones": []}}}
    return tiny.study(
        methods=METHODS,
        figures={"methods": ["student", "kd", "skd"]},
        recipe={"epochs": 1, "milestones": []},
        teachers={"teacher": teacher, "absent": absent},
        pairs=[{"teacher": name, "student": "resnet8"} for name in ("teacher", "absent")],
        settings={"simplifier": {"learning_rate_multiplier": 1.0}},  # so that it does something
    )


@pytest.fixture(scope="session")
def trained(expansion: Expansion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of student, kd and skd, one of the frozen simplifier."""
    results = tmp_path_factory.mktemp("results")
    for method in ("student", "kd", "skd"):
        for seed in (0, 1):
            tiny.run(expansion, results, method, seed)
    tiny.run(expansion, results, "frozen", 1)
    return results


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "IMAGES_PER_CLASS", 4)


@pytest.fixture(scope="session")
def analysed(expansion: Expansion, trained: Path, tmp_path_factory: Any) -> Path:
    """The trained study after its analysis."""
    results = shutil.copytree(trained, tmp_path_factory.mktemp("analysed") / "results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "IMAGES_PER_CLASS", 4)
        analyse_study(expansion, results)
    return results


@pytest.fixture
def copy(analysed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(analysed, tmp_path / "results")


@pytest.fixture(scope="session")
def images(expansion: Expansion) -> Images:
    return load_images(expansion.dataset)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Count the calls of the functions that compute results, by name."""
    counts: Counter = Counter()

    def counting(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counted(*arguments: Any) -> Any:
            counts[name] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    counting(cached_results, "logit_measures")
    counting(cached_results, "class_correlation")
    counting(features, "network_tsne")
    counting(features, "select_images")
    counting(examples, "example_distributions")
    return counts
