"""Views are stored for teachers whose runs would compute their outputs more often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skd.planning.batches import JobShape
from skd.planning.devices import PlannedDevice
from skd.planning.estimates import estimate_run, views_seconds
from skd.planning.survey import survey_study
from skd.planning.views_choice import (
    UnstorableViewsError,
    ViewsConfig,
    ViewsPlan,
    check_useful_views,
    plan_views,
)
from skd.store.store import Store
from skd.study.expansion import Expansion
from tests.builders import planned_studies
from tests.builders.planned_studies import CPU, GPU, leave_views_card, timing, timings

NEEDS = {
    "kd": ("teacher_logits",),
    "crd": ("teacher_pooled",),
    "reviewkd": ("teacher_features",),
    "skd+crd": ("teacher_logits", "teacher_pooled"),
}


def study(methods: tuple[str, ...] = ("student", "kd", "reviewkd"), **options: Any) -> Expansion:
    """Return planned_studies.study with each method's inputs; 162 views; 64 pooled features."""
    expansion = planned_studies.study(methods=methods, **options)
    cells = [c.model_copy(update={"needs": NEEDS.get(c.method, ())}) for c in expansion.cells]
    networks = {
        name: facts.model_copy(update={"pooled": 64}) for name, facts in expansion.networks.items()
    }
    images = expansion.images.model_copy(update={"views": 162})
    return expansion.model_copy(
        update={"cells": tuple(cells), "networks": networks, "images": images}
    )


def plans(expansion: Expansion, tmp_path: Path, **options: Any) -> dict[str, ViewsPlan]:
    store = Store(tmp_path)
    entries = {node.name: store.teacher(node.id) for node in expansion.teachers}
    return plan_views(expansion, entries, ViewsConfig(**options))


@pytest.mark.parametrize(
    ("seeds", "epochs", "stored"),
    [(1, 162, False), (1, 163, True), (3, 54, False), (3, 55, True)],
)
def test_they_pay_where_runs_ask_more_often(tmp_path, seeds, epochs, stored) -> None:
    expansion = study(seeds=seeds, epochs=epochs, milestones=())
    chosen = plans(expansion, tmp_path)
    assert bool(chosen) == stored  # of the three methods one can look logits up
    assert plans(expansion, tmp_path, teacher_views="never") == {}
    (plan,) = plans(expansion, tmp_path, teacher_views="always").values()
    assert (plan.run_epochs, plan.view_epochs) == (seeds * epochs, 162)
    assert plan.cells == {"resnet56--resnet20/kd"}
    assert plan.outputs == ("logits",)
    assert plan.bytes == 50_000 * 162 * 100 * 2  # 1.62 GB


def test_pooled_features_are_stored_where_they_are_read_and_small_enough(tmp_path) -> None:
    expansion = study(("kd", "crd", "skd+crd"))
    (plan,) = plans(expansion, tmp_path).values()
    assert plan.outputs == ("logits", "pooled")
    assert plan.bytes == 50_000 * 162 * 2 * (100 + 64)
    assert len(plan.cells) == 3
    (small,) = plans(expansion, tmp_path, teacher_views_gigabytes=1.1).values()
    assert small.outputs == ("pooled",)
    assert small.cells == {"resnet56--resnet20/crd"}
    assert plans(expansion, tmp_path, teacher_views_gigabytes=1.0) == {}
    (large,) = plans(expansion, tmp_path, teacher_views_precision="float32").values()
    assert large.bytes == 2 * plan.bytes
    assert len({p.digest for p in (plan, small, large)}) == 3


def test_requested_options_are_checked() -> None:
    with pytest.raises(ValidationError, match="auto"):
        ViewsConfig(teacher_views="sometimes")


def test_the_plan_does_not_change_while_the_study_runs(tmp_path) -> None:
    expansion = study(epochs=60, milestones=())
    before = plans(expansion, tmp_path)["resnet56"]
    assert not before.done
    for file in before.files:
        file.folder.mkdir(parents=True)
        leave_views_card(file)
    after = plans(expansion, tmp_path)["resnet56"]
    assert after == before
    assert after.done


def test_a_stored_teacher_costs_no_step_and_its_views_once(tmp_path) -> None:
    expansion = study(epochs=60, milestones=())
    survey = survey_study(expansion, Store(tmp_path), timings(), CPU, 1)
    live = survey_study(
        expansion, Store(tmp_path), timings(), CPU, 1, ViewsConfig(teacher_views="never")
    )
    alone = survey.cells["resnet20/student"].seconds_per_step
    assert survey.cells["resnet56--resnet20/kd"].seconds_per_step == pytest.approx(alone)
    assert live.cells["resnet56--resnet20/kd"].seconds_per_step > 1.9 * alone
    same = "resnet56--resnet20/reviewkd"  # it reads maps
    assert survey.cells[same] == live.cells[same]
    teacher = planned_studies.network("resnet56").multiply_adds
    seconds = 50_000 * 162 * teacher / CPU.rate
    assert survey.views_left == {"resnet56": pytest.approx(seconds)}
    assert views_seconds(expansion, survey.views["resnet56"], CPU) == pytest.approx(seconds)
    assert live.views_left == {}
    total, parts = survey.parts()["all"][0], survey.parts()
    assert [part.name for part in parts["teachers"]] == ["teachers", "teacher views"]
    cells = sum(part.seconds_left for part in parts["methods"])
    assert total.seconds_left == pytest.approx(
        cells + sum(part.seconds_left for part in parts["teachers"])
    )


def with_recipes(expansion: Expansion, **recipes: dict[str, Any]) -> Expansion:
    """Return the study with changed recipes of some methods."""
    cells = []
    for cell in expansion.cells:
        recipe = cell.spec.recipe.model_copy(update=recipes.get(cell.method, {}))
        spec = cell.spec.model_copy(update={"recipe": recipe})
        cells.append(cell.model_copy(update={"spec": spec}))
    return expansion.model_copy(update={"cells": tuple(cells)})


@pytest.mark.parametrize("change", [{"mixing": "mixup"}, {"augmentation": "trivialaugment"}])
def test_views_that_differ_in_every_epoch_are_neither_stored_nor_requested(
    tmp_path, change
) -> None:
    expansion = with_recipes(study(seeds=5, epochs=60, milestones=()), kd=change)
    assert plans(expansion, tmp_path) == {}
    place = "resnet56--resnet20/kd: the recipe's"
    always = ViewsConfig(teacher_views="always")
    with pytest.raises(UnstorableViewsError, match=f"{place} {next(iter(change))}: "):
        survey_study(expansion, Store(tmp_path), timings(), CPU, 1, always)
    with pytest.raises(UnstorableViewsError, match=r"no run of .* can use stored views"):
        check_useful_views(study_without(expansion, "reviewkd"), "resnet56")
    survey_study(study_without(expansion, "kd"), Store(tmp_path), timings(), CPU, 1, always)
    check_useful_views(study(), "resnet56")


def study_without(expansion: Expansion, method: str) -> Expansion:
    cells = tuple(cell for cell in expansion.cells if cell.method != method)
    return expansion.model_copy(update={"cells": cells})


def test_a_strong_view_doubles_the_passes(tmp_path) -> None:
    expansion = study(("reviewkd",))
    (cell,) = expansion.cells
    double = cell.model_copy(update={"extra": cell.extra.model_copy(update={"views": 2})})
    one, two = (estimate_run(expansion, each, timings(), CPU) for each in (cell, double))
    assert two.seconds_per_step == pytest.approx(2 * one.seconds_per_step, rel=0.05)
    assert two.host_bytes > one.host_bytes


def test_jobs_wait_for_the_views_that_they_look_up(tmp_path) -> None:
    expansion = study(epochs=60, milestones=())
    jobs = {
        job.name: job
        for job in survey_study(expansion, Store(tmp_path), timings(), GPU).jobs(JobShape())
    }
    assert jobs["views of resnet56"].needs == ("teacher resnet56",)
    needs = {job.parts[0]: job.needs for job in jobs.values() if job.parts}
    assert needs["resnet56--resnet20/kd"] == ("views of resnet56",)
    assert needs["resnet56--resnet20/reviewkd"] == ("teacher resnet56",)
    assert needs["resnet20/student"] == ()


def test_timings_with_a_stored_teacher_apply_only_to_stored_teachers() -> None:
    expansion = study(("kd",))
    cell = expansion.cells[0]
    measured = timings(timing(cell.spec, stored_teacher=True))
    stored = estimate_run(expansion, cell, measured, GPU, stored_teacher=True)
    assert estimate_run(expansion, cell, measured, GPU).source != "measured"
    known = estimate_run(
        expansion, cell, measured, PlannedDevice("NVIDIA A100-SXM4-40GB", GPU.model), True
    )
    assert (known.source, stored.source) == ("measured", "model")
