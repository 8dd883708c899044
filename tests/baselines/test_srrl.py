"""SRRL against its two errors from plain arrays, and with stored instead of live outputs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines._losses import mean_squared_error
from skd.losses.methods import resolve_method, teacher_needs
from skd.models.network import FeatureNetwork, Outputs
from skd.store.teacher_view_files import stored_outputs
from skd.study.sheet import SheetMethod
from skd.terms import UnfitError
from skd.training.teacher import StoredOutput, StoredTeacher
from tests.builders.losses import assert_follows, draw, make_batch, make_outputs, make_term, slopes
from tests.builders.teachers import Parts, batch_normed

WIDTH, CLASSES = 6, 5


def make_pair():
    student = make_outputs(0, 4, [(2, 4, 4), (3, 2, 2)], width=3)
    return student, make_outputs(1, 4, [(2, 4, 4), (WIDTH, 2, 2)], CLASSES)


def reference(maps, weight, norm, teacher, head, factors):
    """The weighted errors of the feature and of its logits, from the connector's input."""
    connected = batch_normed(torch.einsum("bchw,dc->bdhw", maps, weight[:, :, 0, 0]), norm)
    feature = connected.clamp(min=0).mean(dim=(2, 3)).detach().numpy()
    target = teacher.pooled.detach().numpy()
    matrix, bias = head.weight.numpy(), head.bias.numpy()
    logits, target_logits = (each @ matrix.T + bias for each in (feature, target))
    errors = ((feature - target) ** 2).mean(), ((logits - target_logits) ** 2).mean()
    return factors[0] * errors[0] + factors[1] * errors[1]


@pytest.mark.parametrize("connector", ["pooled", "maps"])
@pytest.mark.parametrize("factors", [(1, 1), (0.5, 3)])
def test_value_and_gradients_follow_the_two_errors(connector, factors):
    student, teacher = make_pair()
    network = Parts(WIDTH, CLASSES)
    term = make_term(
        "srrl",
        student,
        teacher,
        teacher_network=network,
        connector=connector,
        feature_weight=factors[0],
        regression_weight=factors[1],
    )
    loss = term(make_batch(student, teacher))
    loss.backward()
    is_map = connector == "maps"
    leaf = student.preactivations[-1] if is_map else student.pooled
    weight, norm = term.connector[0].weight, term.connector[1]
    maps = leaf.detach().clamp(min=0) if is_map else leaf.detach()[:, :, None, None]
    fixed = norm, teacher, network.head, factors
    assert loss.item() == pytest.approx(reference(maps, weight.detach(), *fixed), rel=1e-11)

    def by_leaf(values):
        changed = values.clamp(min=0) if is_map else values[:, :, None, None]
        return reference(changed, weight.detach(), *fixed)

    np.testing.assert_allclose(leaf.grad, slopes(by_leaf, leaf.detach()), rtol=1e-5, atol=1e-8)
    by_weight = slopes(lambda x: reference(maps, x, *fixed), weight.detach())
    np.testing.assert_allclose(weight.grad, by_weight, rtol=1e-5, atol=1e-8)
    assert student.logits.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_error_is_a_mean_over_all_elements():
    def in_loops(student, teacher):
        return sum((student[i] - teacher[i]) ** 2 for i in np.ndindex(student.shape)) / student.size

    assert_follows(mean_squared_error, in_loops, draw(0, (3, 4)), draw(1, (3, 4)))


def test_the_defaults_are_the_toolboxs_on_cifar100():
    settings = make_term("srrl", *make_pair(), teacher_network=Parts(WIDTH, CLASSES)).settings
    assert (settings.connector, settings.weight, settings.cross_entropy) == ("pooled", 1, 1)
    assert (settings.feature_weight, settings.regression_weight) == (1, 1)


@pytest.mark.parametrize("connector", ["pooled", "maps"])
def test_stored_pooled_features_give_the_loss_of_a_live_teacher(connector):
    assert stored_outputs(teacher_needs(resolve_method(SheetMethod(name="srrl"), {}))) == (
        "pooled",
    )
    student, teacher = make_pair()
    network = Parts(WIDTH, CLASSES)
    student = Outputs(*(_floats(each) for each in vars(student).values()))
    network.float()
    shapes, indices = replace(teacher), torch.tensor([3, 0, 2, 1])
    term = make_term("srrl", student, shapes, teacher_network=network, connector=connector).float()
    live = Outputs(*(_floats(each) for each in vars(teacher).values()))
    views = torch.zeros(4, dtype=torch.int64)
    rows = torch.empty(4, 1, WIDTH)
    rows[indices, 0] = live.pooled.detach()
    stored = StoredTeacher(network, pooled=StoredOutput(rows)).outputs(
        torch.zeros(4, 3, 8, 8), indices, views
    )
    losses = [term(make_batch(student, outputs)).item() for outputs in (live, stored)]
    assert losses[0] == losses[1] > 0


def _floats(value):
    return tuple(map(_floats, value)) if isinstance(value, tuple) else value.detach().float()


def test_a_teacher_that_names_no_classifier_is_refused():
    class Bare(FeatureNetwork):
        def forward_features(self, images):
            raise NotImplementedError

    with pytest.raises(UnfitError, match=r"no final_layer\(\); define it in the class Bare"):
        make_term("srrl", *make_pair(), teacher_network=Bare())
