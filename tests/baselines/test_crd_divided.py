"""CRD of a batch divided among processes and parts equals CRD of the whole batch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import baselines.crd
from baselines.crd import CRD
from skd.losses.objective import Objective
from skd.losses.term import Alone, Batch, TermContext
from skd.models.network import Outputs
from skd.randomness import Draws, seeded
from skd.study.spec import MethodSpec, TermSpec
from tests.builders.losses import make_outputs

IMAGES, CLASSES, SIZE, GROUP, WIDTH, STEPS = 60, 5, 16, 4, 6, 3
LABELS = torch.arange(IMAGES) % CLASSES


class Together:
    """Emulate processes by threads: each gives its rows, then all continue."""

    def __init__(self, count: int) -> None:
        self.barrier, self.given = threading.Barrier(count, timeout=20), [None] * count

    def member(self, rank: int) -> Member:
        return Member(self, rank)


class Member:
    def __init__(self, team: Together, rank: int) -> None:
        self.team, self.rank = team, rank

    def _all(self, value: Tensor) -> list[Tensor]:
        assert not value.requires_grad
        self.team.given[self.rank] = value.clone()
        self.team.barrier.wait()
        values = list(self.team.given)
        self.team.barrier.wait()
        return values

    def all_gather(self, rows: Tensor) -> Tensor:
        return torch.cat(self._all(rows))

    def broadcast_tensor(self, value: Tensor) -> Tensor:
        return self._all(value)[0]


def make(negatives: int, group: int | None = GROUP) -> CRD:
    outputs = [make_outputs(seed, SIZE, classes=CLASSES, width=WIDTH) for seed in (1, 2)]
    context = TermContext(CLASSES, LABELS, 0, *outputs, group=group)
    with seeded(0, "crd"):
        chosen = CRD.Settings(negatives=negatives, width=7, temperature=0.3)
        return CRD(chosen, context).double()


def outputs_of(step: int) -> tuple[Outputs, Outputs, Tensor]:
    """A step's outputs of both networks and its images."""
    outputs = (
        make_outputs(10 * step + seed, SIZE, classes=CLASSES, width=WIDTH) for seed in (1, 2)
    )
    order = np.random.default_rng(step).permutation(IMAGES)[:SIZE]
    return *outputs, torch.from_numpy(order)


def part_of(step: int, rows: slice, draws: Draws, peers=None) -> Batch:
    student, teacher, places = outputs_of(step)
    student, teacher = (
        Outputs(side.logits[rows], (), (), side.pooled.detach()[rows].requires_grad_())
        for side in (student, teacher)
    )
    places = places[rows]
    batch = Batch(student, teacher, LABELS[places], places, 1, draws, first=rows.start)
    return replace(batch, peers=peers or Alone())


def train(crd: CRD, rank: int, processes: int, parts: int, peers) -> list[dict[str, Tensor]]:
    """Return the losses, gradients and state of one process after each step."""
    draws, results = Draws(3), []
    count = processes * parts
    for step in range(STEPS):
        draws.set_step(1, step)
        crd.zero_grad()
        losses, inputs = [], []
        for number in range(rank * parts, (rank + 1) * parts):
            rows = slice(number * SIZE // count, (number + 1) * SIZE // count)
            batch = part_of(step, rows, draws, peers)
            loss = crd(batch) / count
            loss.backward()
            losses.append(loss.detach())
            inputs.append((batch.student.pooled.grad, batch.teacher.pooled.grad))
        crd.after_step(peers)
        results.append(
            {
                "loss": torch.stack(losses).sum(),
                **{name: p.grad.clone() for name, p in crd.named_parameters()},
                "by student": torch.cat([student for student, _ in inputs]),
                "by teacher": torch.cat([teacher for _, teacher in inputs]),
                **{f"state {name}": b.clone() for name, b in crd.named_buffers()},
            }
        )
    return results


def divided(negatives: int, processes: int, parts: int) -> list[list[dict[str, Tensor]]]:
    """Return each process's steps."""
    team = Together(processes)
    terms = [make(negatives) for _ in range(processes)]

    def work(rank: int) -> list[dict[str, Tensor]]:
        return train(terms[rank], rank, processes, parts, team.member(rank))

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(work, range(processes)))


# Without and with replacement, and listed; also on the path of a GPU.
@pytest.mark.parametrize("case", ["drawn", "repeated", "listed", "another device"])
@pytest.mark.parametrize(("processes", "parts"), [(1, 2), (1, 4), (2, 1), (2, 2), (4, 1)])
def test_a_divided_batch_is_the_whole_one_to_rounding(case, processes, parts, monkeypatch):
    if case == "listed":
        monkeypatch.setattr(baselines.crd, "MOST_SCORED", 10)
    if case == "another device":
        monkeypatch.setattr(Tensor, "is_cpu", False)
    negatives = 80 if case == "repeated" else 12
    whole = train(make(negatives), 0, 1, 1, Alone())
    members = divided(negatives, processes, parts)
    for step, expected in enumerate(whole):
        results = [member[step] for member in members]
        for name, value in expected.items():
            values = [one[name] for one in results]
            if name.startswith("state"):  # the same in every process
                assert all(torch.equal(values[0], other) for other in values)
                total = values[0]
            else:
                total = torch.cat(values) if name.startswith("by") else sum(values)
            torch.testing.assert_close(total, value, rtol=1e-11, atol=1e-13, msg=name)
    assert not torch.equal(whole[0]["state student_bank"], whole[1]["state student_bank"])
    losses = {round(one["loss"].item(), 6) for one in whole}
    assert len(losses) == STEPS


def test_z_is_of_the_first_batchs_first_group():
    crd, draws = make(12), Draws(3)
    batch = part_of(0, slice(0, SIZE), draws)
    own = batch.target[:GROUP, None] == LABELS
    drawn = crd.draw(own, 12, draws.set_step(1, 0).generator("CRD's negatives, group 0"))
    vectors = crd.embed_student(batch.student.pooled[:GROUP]).detach()
    anchors = vectors / vectors.norm(dim=1, keepdim=True)
    scores = (anchors @ crd.teacher_bank.T / 0.3).exp()
    seen = scores.gather(1, batch.indices[:GROUP, None]).sum() + scores[drawn].sum()
    expected = (seen / (GROUP * 13) * IMAGES).log().item()
    draws.set_step(1, 0)
    crd(batch)
    assert crd.log_normalisers[0].item() == pytest.approx(expected, rel=1e-12)
    whole = make(12, group=None)
    whole(part_of(0, slice(0, SIZE), Draws(3).set_step(1, 0)))
    assert whole.log_normalisers[0].item() != pytest.approx(expected, rel=1e-6)


def test_groups_of_a_batch_draw_apart_and_a_smaller_last_group_too():
    crd, draws = make(12), Draws(3).set_step(1, 0)
    rows = slice(0, 2 * GROUP + 1)
    batch = part_of(0, rows, draws)
    batch = replace(batch, target=torch.zeros_like(batch.target))
    images = crd._draw(batch).images
    assert images.shape == (2 * GROUP + 1, 12)
    assert len({tuple(row) for row in images.tolist()}) == len(images)
    later = make(12)._draw(replace(batch, target=batch.target[:GROUP], first=GROUP))
    assert not torch.equal(later.images, images[GROUP : 2 * GROUP])  # the random stream continued
    draws.set_step(1, 0)
    later = make(12)._draw(replace(batch, target=batch.target[:GROUP], first=GROUP))
    assert torch.equal(later.images, images[GROUP : 2 * GROUP])


def test_what_an_unfinished_step_remembered_is_dropped():
    """A step is repeated when its recording fails half-way."""
    halves = [slice(0, SIZE // 2), slice(SIZE // 2, SIZE)]
    plain, again, half_way = make(12), make(12), make(12)
    for term, seen in (
        (plain, halves),
        (again, [*halves, *halves]),
        (half_way, [halves[0], *halves]),
    ):
        for rows in seen:
            term(part_of(0, rows, Draws(3).set_step(1, 0)))
        assert len(term._parts) == 2
        term.after_step(Alone())
        assert term._parts == []
        assert torch.equal(term.student_bank, plain.student_bank)


def test_banks_move_once_a_step_and_not_before():
    crd = make(12)
    before = crd.student_bank.clone()
    crd(part_of(0, slice(0, SIZE), Draws(3).set_step(1, 0)))
    assert torch.equal(crd.student_bank, before)
    context = TermContext(CLASSES, LABELS, 0, *outputs_of(0)[:2], group=GROUP)
    spec = MethodSpec(terms=[TermSpec(term="crd", version=2, settings={"negatives": 12})])
    objective = Objective(spec, context).double()
    objective.begin_epoch(1)
    objective(part_of(0, slice(0, SIZE), Draws(3).set_step(1, 0)))
    banks = [objective.terms["crd"].student_bank.clone()]
    objective.after_step(Alone())
    moved = (objective.terms["crd"].student_bank != banks[0]).any(dim=1).nonzero().flatten()
    assert moved.tolist() == sorted(outputs_of(0)[2].tolist())
