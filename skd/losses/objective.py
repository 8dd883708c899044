"""The objective of a training: the weighted sum of a method's terms, and its simplifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from skd.losses.discovery import term_class
from skd.losses.simplifier import Simplifier, SimplifierSettings
from skd.losses.standardisation import standardise_logits
from skd.losses.term import Batch, Peers, TermContext
from skd.models.network import Outputs
from skd.randomness import seeded
from skd.study.spec import MethodSpec


@dataclass(frozen=True)
class Losses:
    """The losses of a step: the total to minimise, the loss of each term, and the diagnostics."""

    total: Tensor
    by_term: dict[str, Tensor]
    diagnostics: dict[str, Tensor]


class Objective(nn.Module):
    """The weighted sum of a method's terms. Its parameters are trained with the student's."""

    def __init__(self, method: MethodSpec, context: TermContext) -> None:
        super().__init__()
        self.terms = nn.ModuleDict()
        for spec in method.terms:
            term = term_class(spec.term)
            settings = term.Settings.restore(spec.settings)
            label = self._label(spec.term, settings.teacher)
            with seeded(context.seed, f"weights of {label}"):  # the same in every method
                self.terms[label] = term(settings, context)
        self.simplifier = None
        if method.simplifier is not None:
            settings = SimplifierSettings.restore(method.simplifier.settings)
            with seeded(context.seed, "weights of the simplifier"):
                self.simplifier = Simplifier(settings, context.num_classes)
        self._epoch = 0
        self._weights: Tensor | None = None  # the terms' weights in that epoch, on the device

    def parameter_groups(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """Yield the objective's trainable parameters with their learning-rate multipliers."""
        if parameters := trainable_parameters(self.terms):
            yield parameters, 1.0
        if self.simplifier is not None and (parameters := trainable_parameters(self.simplifier)):
            yield parameters, self.simplifier.settings.learning_rate_multiplier

    def tensors_to_store(self) -> dict[str, Tensor]:
        """Return the tensors to store after the training: the simplifier's state dict.

        The terms' modules and memory banks are large and not used after the training.
        """
        return self.simplifier.state_dict() if self.simplifier is not None else {}

    def begin_epoch(self, epoch: int, device: torch.device | str = "cpu") -> None:
        """Set the terms to an epoch (1-based), and their weights on the losses' device.

        The weights are updated in place, so that a recorded step reads the new ones.
        """
        if epoch == self._epoch:
            return
        weights = [term.weight(epoch) for term in self.terms.values()]
        if self._weights is None:
            self._weights = torch.zeros(len(weights), dtype=torch.float64, device=device)
        self._weights.copy_(torch.tensor(weights, dtype=torch.float64))
        for term in self.terms.values():
            term.begin_epoch(epoch)
        self._epoch = epoch

    def graph_key(self, epoch: int) -> tuple[int, ...]:
        """Return a key of the recorded step: a recording is valid while the key is the same.

        The key has the epoch once for each term that reads it.
        """
        return tuple(epoch for term in self.terms.values() if term.reads_epoch)

    def partition_problem(self, part_size: int) -> str | None:
        """Return why a batch cannot be divided into parts of some size; ``None`` if it can.

        It can if the mean of the parts' losses is the batch's loss.

        Args:
            part_size: images in each part.
        """
        reasons = [
            f"{label} compares the images of a batch with each other: its loss is not the mean of "
            "the parts' losses"
            for label, term in self.terms.items()
            if term.mixes_images
        ]
        if self.simplifier is not None and (reason := self.simplifier.partition_problem(part_size)):
            reasons.append(reason)
        return "; ".join(reasons) or None

    def after_step(self, peers: Peers) -> None:
        """Call each term's `after_step`, once per step after its last part, in every process."""
        for term in self.terms.values():
            term.after_step(peers)

    def forward(self, batch: Batch) -> Losses:
        """Return the losses of a step's batch, or of a part of it.

        ``batch.teacher`` has the teacher's raw logits.

        Raises:
            RuntimeError: `begin_epoch` has not been called.
        """
        if self._weights is None:
            raise RuntimeError("call begin_epoch first: the terms' weights depend on the epoch")
        simplified, own_loss, diagnostics = self._simplify(batch)
        losses: dict[str, Tensor] = {}
        for label, term in self.terms.items():
            term_batch = simplified if term.settings.teacher == "simplified" else batch
            if term.settings.standardise:
                term_batch = _with_standardised_logits(term_batch)
            losses[label] = term(term_batch)
        values = torch.stack([*losses.values()])
        weighted = self._weights.to(values.dtype) * values
        if own_loss is not None:
            losses["simplifier"] = own_loss
            weighted = torch.cat([weighted, own_loss[None]])
        return Losses(weighted.sum(), losses, diagnostics)

    def _label(self, term: str, teacher: str) -> str:
        """Return a term's name in logs; a second term of the same name is numbered."""
        label = f"{term} on simplified" if teacher == "simplified" else term
        count = sum(existing.split(" #")[0] == label for existing in self.terms)
        return f"{label} #{count + 1}" if count else label

    def _simplify(self, batch: Batch) -> tuple[Batch, Tensor | None, dict[str, Tensor]]:
        """Return the batch with simplified logits, the simplifier's loss, and the diagnostics."""
        if self.simplifier is None:
            return batch, None, {}
        raw, student = batch.teacher.logits, batch.student.logits
        simplified = self.simplifier(raw)
        teacher = replace(batch.teacher, logits=self.simplifier.for_student(simplified))
        return (
            replace(batch, teacher=teacher),
            self.simplifier.own_loss(raw, simplified, student),
            self.simplifier.diagnostics(raw, simplified, student, batch.target),
        )


def _with_standardised_logits(batch: Batch) -> Batch:
    def standardise(outputs: Outputs) -> Outputs:
        return replace(outputs, logits=standardise_logits(outputs.logits))

    return replace(batch, student=standardise(batch.student), teacher=standardise(batch.teacher))


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters of a module."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
