"""The student's branches of SFTN: its layers after a stage, fed by the teacher's map."""

import torch
from torch import Tensor, nn

from skd.terms import FeatureNetwork, MissingPartError, Outputs, Partner, UnfitError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # networks index and slice them


class Branch(nn.Module):
    """A transform of the teacher's map, then the student's own layers after a stage.

    The student's layers have fresh weights, and only those that the branch uses are kept.

    Args:
        partner: the student.
        stage: index in `Outputs.stages` of both networks.
        teacher: the teacher's map at that stage, for its shape (N, C, H, W) only.

    Raises:
        UnfitError: the maps cannot be joined, or the student's network has no `forward_from`.
    """

    def __init__(self, partner: Partner, stage: int, teacher: Tensor) -> None:
        super().__init__()
        student = partner.outputs.stages[stage]
        self.stage = stage
        self.transform = _transform(stage, teacher.shape[1:], student.shape[1:])
        with torch.device("cpu"):  # also in a dry run: the pass that follows needs values
            self.student = partner.build()
            try:
                keep_used_layers(self.student, stage, torch.zeros(1, *student.shape[1:]))
            except MissingPartError as error:
                raise UnfitError(str(error)) from error

    def forward(self, maps: Tensor) -> Outputs:
        """Return the branch's outputs on the teacher's map (B, C, H, W)."""
        return self.student.forward_from(self.stage, self.transform(maps))


def branch_stages(teacher: Outputs, partner: Partner) -> range:
    """Return the stages that have a branch: all between the stem and the last one.

    Raises:
        UnfitError: teacher and student have different numbers of stages, or none in between.
    """
    ours, theirs = len(teacher.stages) - 1, len(partner.outputs.stages) - 1
    if ours != theirs:
        raise UnfitError(
            f"stages are joined one to one, but after the stem the teacher has {ours} and the "
            f"partner {partner.name} has {theirs}"
        )
    if ours < 2:
        raise UnfitError(
            "a branch joins a stage between the stem and the last one, but the networks have none"
        )
    return range(1, ours)


def keep_used_layers(network: FeatureNetwork, stage: int, maps: Tensor) -> None:
    """Remove the parameters that ``network.forward_from(stage, ·)`` does not use.

    Args:
        network: changed in place; its unused layers become identities.
        stage: index in `Outputs.stages`.
        maps: of that stage's shape, (N, C, H, W).
    """
    called, used = _used_parts(network, stage, maps)
    _remove_unused(network, called, used)


@torch.enable_grad()
def _used_parts(
    network: FeatureNetwork, stage: int, maps: Tensor
) -> tuple[set[nn.Module], set[int]]:
    """Return the called modules, and the ids of the parameters on which the logits depend."""
    called: set[nn.Module] = set()
    hooks = [
        module.register_forward_hook(lambda module, *_: called.add(module))
        for module in network.modules()
    ]
    was_training = network.training
    logits = network.eval().forward_from(stage, maps).logits
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    parameters = [*network.parameters()]
    gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
    used = {
        id(parameter)
        for parameter, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None
    }
    return called, used


def _remove_unused(module: nn.Module, called: set[nn.Module], used: set[int]) -> None:
    for name, parameter in [*module.named_parameters(recurse=False)]:
        if id(parameter) not in used:
            setattr(module, name, None)
    for name, child in [*module.named_children()]:
        is_used = any(part in called for part in child.modules())
        is_used |= any(id(parameter) in used for parameter in child.parameters())
        if is_used or isinstance(child, CONTAINERS):
            _remove_unused(child, called, used)
        else:
            setattr(module, name, nn.Identity())


def _transform(stage: int, teacher: torch.Size, student: torch.Size) -> nn.Sequential:
    """Return a transform between maps of two shapes (C, H, W): convolution, BatchNorm and ReLU.

    The convolution is 3×3 with stride 2 where the teacher's map is twice as large, transposed 4×4
    with stride 2 where it is half as large, and 1×1 where the sizes are equal. It has no bias,
    since BatchNorm follows.
    """
    (channels, *size), (student_channels, *target) = teacher, student
    if size == target:
        convolution = nn.Conv2d(channels, student_channels, 1, bias=False)
    elif [(length + 1) // 2 for length in size] == target:
        convolution = nn.Conv2d(channels, student_channels, 3, stride=2, padding=1, bias=False)
    elif [2 * length for length in size] == target:
        convolution = nn.ConvTranspose2d(
            channels, student_channels, 4, stride=2, padding=1, bias=False
        )
    else:
        raise UnfitError(
            f"the teacher's map after stage {stage} is {_text(size)} and the partner's "
            f"{_text(target)}; sizes must be equal, or differ by a factor of 2"
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(student_channels), nn.ReLU())


def _text(size: list[int]) -> str:
    return "x".join(map(str, size))
