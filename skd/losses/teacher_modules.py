"""The frozen teacher's modules that a loss may use, by their role."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from skd.common.errors import SkdError, UnfitError
from skd.models.network import FeatureNetwork, Outputs

# The method of a network behind each need that not every network defines.
_METHODS = {"teacher_classifier": "final_layer", "teacher_stages": "forward_from"}
_UNDEFINED = {method: getattr(FeatureNetwork, method) for method in _METHODS.values()}


class UndeclaredNeedError(SkdError, AttributeError):
    """A loss uses a module of the teacher that it does not declare in its `needs`."""


class TeacherModules:
    """Modules of the frozen teacher, for losses that reuse them.

    They are in evaluation mode and their parameters take no gradient, but gradients pass through
    them to their inputs. This is not a module: a term that stores it in an attribute neither trains
    the teacher nor adds it to checkpoints.

    Args:
        network: the teacher.
        needs: what the term declares; other modules cannot be read.
    """

    def __init__(self, network: FeatureNetwork, needs: Iterable[str] = ()) -> None:
        self._network, self._needs = network, frozenset(needs)

    def restrict(self, needs: Iterable[str]) -> TeacherModules:
        """Return the same modules for a term with some needs.

        Raises:
            UnfitError: the network does not define one of the modules.
        """
        needs = frozenset(needs)
        for need, method in _METHODS.items():
            if need in needs and getattr(type(self._network), method) is _UNDEFINED[method]:
                raise UnfitError(
                    f"the teacher's network defines no {method}(); define it in the class "
                    f"{type(self._network).__name__}"
                )
        return TeacherModules(self._network, needs)

    def classifier(self, pooled: Tensor) -> Tensor:
        """Return the teacher's logits for pooled features, (B, C). Need: teacher_classifier.

        Args:
            pooled: (B, D) with the width D of the teacher's pooled feature.
        """
        self._check("teacher_classifier")
        return self._network.final_layer()(pooled)

    @property
    def batch_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The BatchNorm before each pre-activation, the stem's first. Need: teacher_batch_norms.

        ``None`` where no BatchNorm comes directly before the ReLU; empty for a network without
        pre-activations.
        """
        self._check("teacher_batch_norms")
        return self._network.preactivation_norms()

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        """Run the teacher's layers after a stage on maps of its shape. Need: teacher_stages.

        Args:
            stage: index in `Outputs.stages`; 0 is the stem.
            maps: activated maps (B, C, H, W) as that stage returns them.
        """
        self._check("teacher_stages")
        return self._network.forward_from(stage, maps)

    def _check(self, need: str) -> None:
        if need not in self._needs:
            raise UndeclaredNeedError(f"add {need!r} to the class's `needs` to use this module")
