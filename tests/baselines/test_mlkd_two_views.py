"""MLKD on two views against its authors' losses, written out in float64 with loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from skd.losses.term import Batch, StrongView
from skd.models.network import Outputs
from skd.randomness import Draws
from tests.baselines.test_mlkd import levels, probabilities, reference, share_up_to_median
from tests.builders.formulas import log_softmax
from tests.builders.losses import draw, make_term, slopes

WEAK_T, STRONG_T, REPEATED_T = (2.0, 3.0, 4.0, 5.0, 6.0), (3.0, 4.0, 5.0), (2.0, 6.0)
TARGET = torch.tensor([0, 3, 1, 4, 4])


def entropy(logits: Tensor, target: Tensor) -> float:
    rows = zip(logits.tolist(), target.tolist(), strict=True)
    return -math.fsum(log_softmax(row, 1.0)[label] for row, label in rows) / len(target)


def authors_loss(weak: Tensor, strong: Tensor, on_weak: Tensor, on_strong: Tensor) -> float:
    """Return what KD_ours.forward_train sums, but for the weak view's cross-entropy.

    Args:
        weak, strong: the student's logits on both views.
        on_weak, on_strong: the teacher's.
    """
    confidence = probabilities(on_weak, 1.0)
    mask = share_up_to_median([max(row) for row in confidence])
    columns = [math.fsum(column) for column in zip(*confidence, strict=True)]
    class_mask = share_up_to_median(columns)
    kd_weak = kd_strong = cc_weak = bc_weak = 0.0
    for t in (4.0, 3.0, 5.0, 2.0, 6.0):
        instance, of_batch, of_classes = levels(weak, on_weak, t)
        kd_weak += mask * instance
        bc_weak += mask * of_batch
        cc_weak += class_mask * of_classes
    for t in (4.0, 3.0, 5.0):
        kd_strong += levels(strong, on_strong, t)[0]
    for t in (2.0, 6.0):  # the slip in their code
        kd_strong += levels(weak, on_weak, t)[0]
    return 0.1 * entropy(strong, TARGET) + 0.9 * (kd_weak + kd_strong + cc_weak + bc_weak)


def outputs_with(logits: Tensor) -> Outputs:
    return Outputs(logits, (), (), logits)


def loss_of(views: list[Tensor], **settings) -> Tensor:
    """Return the term's loss for logits in the order of `authors_loss`."""
    weak, strong, on_weak, on_strong = map(outputs_with, views)
    term = make_term("mlkd_two_views", weak, on_weak, **settings)
    places = torch.arange(len(TARGET))
    batch = Batch(weak, on_weak, TARGET, places, 1, Draws(0), strong=StrongView(strong, on_strong))
    return term(batch)


def test_value_and_gradients_are_the_authors() -> None:
    views = [draw(seed, (5, 6), 2.0).requires_grad_() for seed in range(4)]
    loss = loss_of(views)
    loss.backward()
    plain = [view.detach() for view in views]
    assert loss.item() == pytest.approx(authors_loss(*plain), rel=1e-10)
    for place, view in enumerate(views):
        if place == 2:  # the masks depend on it, but have no gradient
            continue

        def value(x: Tensor, place: int = place) -> float:
            return authors_loss(*plain[:place], x, *plain[place + 1 :])

        torch.testing.assert_close(view.grad, slopes(value, plain[place]), rtol=1e-5, atol=1e-7)


def test_settings_decide_what_is_summed() -> None:
    views = [draw(seed, (5, 6), 2.0) for seed in range(4)]
    nothing = {"strong_temperatures": (), "repeated_temperatures": ()}
    alone = loss_of(views, strong_cross_entropy=0, **nothing)
    assert alone.item() == pytest.approx(0.9 * reference(views[0], views[2], WEAK_T), rel=1e-10)
    entropy_alone = loss_of(views, alignment=0, strong_cross_entropy=0.5)
    assert entropy_alone.item() == pytest.approx(0.5 * entropy(views[1], TARGET), rel=1e-12)
    intended = loss_of(views, strong_temperatures=WEAK_T, repeated_temperatures=())
    on_strong = sum(levels(views[1], views[3], t)[0] for t in REPEATED_T)
    on_weak = sum(levels(views[0], views[2], t)[0] for t in REPEATED_T)
    change = 0.9 * (on_strong - on_weak)
    assert (intended - loss_of(views)).item() == pytest.approx(change, rel=1e-10)


def test_half_precision_is_computed_in_float32() -> None:
    views = [draw(seed, (5, 6), 30.0).bfloat16().requires_grad_() for seed in range(4)]
    loss = loss_of(views)
    loss.backward()
    assert loss.dtype == torch.float32
    exact = authors_loss(*(view.detach().double() for view in views))
    assert loss.item() == pytest.approx(exact, rel=1e-4)
    assert all(view.grad.isfinite().all() for view in views)
