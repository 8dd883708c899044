"""SoTeacher: the running means over epochs in plain Python, the Lipschitz sum in loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from baselines.soteacher import SoTeacher, lipschitz_sum
from skd.losses.term import Alone
from skd.terms import NetworkReference, TermContext, UnfitError
from skd.training.batch_norm import use_grouped_batch_norms
from tests.builders.formulas import softmax
from tests.builders.losses import draw, make_batch, make_outputs, slopes

CLASSES, IMAGES, EPOCHS = 4, 6, 5


def make_network() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*network.parameters(), network[1].running_var]:
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        network[1].running_var.square_()
    return network


def make_soteacher(epochs: int | None = EPOCHS, **settings) -> SoTeacher:
    outputs = make_outputs(0, 1, classes=CLASSES)
    context = TermContext(
        CLASSES,
        torch.arange(IMAGES) % CLASSES,
        0,
        outputs,
        None,
        network=NetworkReference(make_network()),
        epochs=epochs,
    )
    return SoTeacher(SoTeacher.Settings(**settings), context).double()


def lipschitz(conv, grouped, scale, variance, linear) -> float:
    """Sum over all |w| of convolutions; largest |γ|/√(var + ε); largest column sum of |W|."""
    total = sum(abs(w) for w in [*conv.ravel(), *grouped.ravel()])
    total += max(abs(g) / math.sqrt(v + 1e-5) for g, v in zip(scale, variance, strict=True))
    return total + max(sum(abs(w) for w in column) for column in linear.T)


def test_lipschitz_sum_and_its_gradients_follow_the_formula():
    network = make_network()
    total = lipschitz_sum(network.modules())
    total.backward()
    names = ["0.weight", "3.weight", "1.weight", "5.weight"]
    leaves = dict(network.named_parameters())
    arrays = {name: leaves[name].detach().numpy() for name in names}
    variance = network[1].running_var.numpy()

    def value_with(**changed):
        conv, grouped, scale, linear = (arrays | changed).values()
        return lipschitz(conv, grouped, scale, variance, linear)

    assert total.item() == pytest.approx(value_with(), rel=1e-12)
    for name in names:
        expected = slopes(lambda x, name=name: value_with(**{name: x}), arrays[name])
        np.testing.assert_allclose(leaves[name].grad, expected, rtol=1e-6, atol=1e-8)
    for bias in ("0.bias", "1.bias", "5.bias"):
        assert leaves[bias].grad is None


def test_lipschitz_sum_sees_the_layers_that_the_loop_puts_in():
    network = make_network()
    before = lipschitz_sum(network.modules())
    use_grouped_batch_norms(network, 2)
    assert torch.equal(before, lipschitz_sum(network.modules()))


def test_epochs_follow_the_authors_schedule():
    """Epoch 1 has no penalty and stores the predictions; later ones pull towards their mean."""
    term = make_soteacher(consistency=2.0, lipschitz=1e-3)
    constant = 1e-3 * lipschitz_sum(term.network.module.modules()).item()
    means = np.zeros((IMAGES, CLASSES))
    for epoch in range(1, EPOCHS + 1):
        term.begin_epoch(epoch)
        alpha = 0.0 if epoch == 1 else 2.0 * epoch / EPOCHS
        rate = 1.0 if epoch == 1 else 1 / (epoch + 1)
        for step, places in enumerate(([3, 0, 5], [1, 4, 2])):
            logits = draw(10 * epoch + step, (3, CLASSES)).requires_grad_()
            outputs = replace(make_outputs(0, 3, classes=CLASSES), logits=logits)
            batch = make_batch(outputs, None, epoch=epoch, indices=torch.tensor(places))
            loss = term(batch)
            loss.backward()

            def value_of(array, alpha=alpha, places=places):
                squares = [
                    (p - q) ** 2
                    for row, place in zip(array.tolist(), places, strict=True)
                    for p, q in zip(softmax(row), means[place], strict=True)
                ]
                return alpha * sum(squares) / 3 + constant

            array = logits.detach().numpy()
            assert loss.item() == pytest.approx(value_of(array), rel=1e-12)
            np.testing.assert_allclose(logits.grad, slopes(value_of, array), rtol=1e-5, atol=1e-9)
            term.after_step(Alone())
            for row, place in zip(array.tolist(), places, strict=True):
                means[place] = (1 - rate) * means[place] + rate * np.array(softmax(row))
            np.testing.assert_allclose(term.mean_predictions, means, rtol=1e-12)
    assert term.consistency.item() == pytest.approx(2.0)  # the whole weight in the last epoch


def test_the_running_means_are_kept_and_the_schedule_is_not():
    assert set(make_soteacher().state_dict()) == {"mean_predictions"}


def test_parts_of_a_batch_and_of_processes_are_the_batch():
    """The means move once a step, by the rows that all processes gather."""

    class Peers(Alone):
        def all_gather(self, rows):  # the other process has the rows of `other`
            return torch.cat([rows, other.pop(0)])

    def batch_of(places, first=0):
        outputs = replace(make_outputs(0, len(places), classes=CLASSES), logits=logits[places])
        return replace(make_batch(outputs, None, indices=torch.tensor(places)), first=first)

    logits = draw(1, (IMAGES, CLASSES))
    whole, parts = make_soteacher(), make_soteacher()
    for term in (whole, parts):
        term.mean_predictions.fill_(0.25)
        term.begin_epoch(3)
    loss = whole(batch_of([0, 1, 2, 3]))
    halves = [parts(batch_of([0]) if first == 0 else batch_of([1], first)) for first in (0, 1)]
    other = [torch.tensor([2, 3]), logits[[2, 3]].softmax(dim=1)]
    own = parts.network, torch.stack(halves).mean()
    constant = 1e-5 * lipschitz_sum(own[0].module.modules())
    rest = make_soteacher()
    rest.mean_predictions.fill_(0.25)
    rest.begin_epoch(3)
    expected = (own[1] - constant + rest(batch_of([2, 3])) - constant) / 2 + constant
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    whole.after_step(Alone())
    parts.after_step(Peers())
    torch.testing.assert_close(parts.mean_predictions, whole.mean_predictions, rtol=1e-12, atol=0)
    assert not whole.mean_predictions[:4].eq(0.25).any()
    assert whole.mean_predictions[4:].eq(0.25).all()


def test_a_step_that_was_not_finished_leaves_nothing():
    term = make_soteacher()
    term.begin_epoch(1)
    for places in ([0, 1], [2, 3]):  # the first one fails before `after_step`
        outputs = make_outputs(places[0], 2, classes=CLASSES)
        term(make_batch(outputs, None, indices=torch.tensor(places)))
    term.after_step(Alone())
    assert term.mean_predictions[:2].eq(0).all()
    assert term.mean_predictions[2:4].gt(0).all()


def test_an_image_without_an_earlier_prediction_has_no_penalty():
    term = make_soteacher(lipschitz=0.0)
    student = make_outputs(3, 2, classes=CLASSES)
    batch = replace(make_batch(student, student), indices=torch.tensor([1, 4]))
    term.mean_predictions[4] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    term.begin_epoch(2)
    loss = term(batch)
    p = softmax(student.logits[1].tolist())
    distance = sum((a - b) ** 2 for a, b in zip(p, [0.1, 0.2, 0.3, 0.4], strict=True))
    assert loss.item() == pytest.approx(2 / EPOCHS * distance / 2)
    term.after_step(Alone())
    first = softmax(student.logits[0].tolist())
    assert term.mean_predictions[1].tolist() == pytest.approx(first)  # and not a third of it


def test_defaults_are_the_authors():
    chosen = SoTeacher.Settings()
    assert (chosen.weight, chosen.cross_entropy) == (1, 1)
    assert (chosen.consistency, chosen.lipschitz) == (1, 1e-5)
    assert SoTeacher.needs == frozenset()
    assert not SoTeacher.uses_partner


def test_an_unknown_number_of_epochs_is_an_error():
    with pytest.raises(UnfitError, match="give `epochs`"):
        make_soteacher(epochs=None).begin_epoch(1)
