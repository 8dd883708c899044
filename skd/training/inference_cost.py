"""The size and the cost of a trained network when it is used."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skd.models.accounting import count_layers, count_parameters, evaluating, multiply_adds
from skd.training.data_parallel import with_classifier
from skd.training.loop import Training


@dataclass(frozen=True)
class InferenceCost:
    """What a prediction of a run's student needs.

    Attributes:
        parameters: of the layers that it uses.
        kept_parameters: those among them that belong to the objective.
        multiply_adds: of one forward pass on one image.
    """

    parameters: int
    kept_parameters: int
    multiply_adds: int


def inference_cost(training: Training) -> InferenceCost:
    """Return the cost of the student, or of the student with the classifier that replaces its own.

    In the latter case, the student's layers after the features that the classifier reads do not
    count. The classifier's own layers do, and so does the teacher's classifier if it is used.
    """
    student, classifier = training.student, training.objective.classifier()
    shape = (3, *[training.views.size] * 2)
    if classifier is None:
        return InferenceCost(count_parameters(student), 0, multiply_adds(student, shape))
    weight = next(student.parameters())
    image = torch.zeros(1, *shape, device=weight.device, dtype=weight.dtype)
    evaluated = with_classifier(student, training.objective)
    with evaluating(evaluated):
        layers = [*_used_layers(student, evaluated(image)), *classifier.modules()]
        if "teacher_classifier" in classifier.needs:
            layers += training.training_step.teacher.network.final_layer().modules()
        with torch.no_grad(), count_layers(nn.ModuleList(layers)) as counts:
            evaluated(image)
    return InferenceCost(
        parameters=sum(p.numel() for layer in layers for p in layer.parameters(recurse=False)),
        kept_parameters=count_parameters(classifier),
        multiply_adds=counts.multiply_adds,
    )


def _used_layers(student: nn.Module, logits: Tensor) -> list[nn.Module]:
    """Return the student's layers on whose parameters the logits depend."""
    owners = {
        parameter: layer
        for layer in student.modules()
        for parameter in layer.parameters(recurse=False)
        if parameter.requires_grad
    }
    gradients = torch.autograd.grad(logits.sum(), [*owners], allow_unused=True)
    used = [
        layer
        for layer, gradient in zip(owners.values(), gradients, strict=True)
        if gradient is not None
    ]
    return list(dict.fromkeys(used))
