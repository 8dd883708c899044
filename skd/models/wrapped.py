"""Networks of torchvision and timm, with stages by the names of their modules.

The libraries' code runs as it is: hooks read the stages' maps on the way. So these networks have no
pre-activations and no `forward_from`, and their passes cannot be compiled as one graph.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from skd.common.errors import SkdError, UnknownNameError, suggest
from skd.common.wrapped_networks import WrappedNetwork, options_problem
from skd.models.network import FeatureNetwork, Outputs

INNER_PREFIX = "network."  # of the library's names within a wrapped network
# What hooks have read in the pass that a thread runs. Lanes are threads and may share a teacher.
_PASS = threading.local()


class WrapError(SkdError, ValueError):
    """A network of another library cannot be used as described. The message says why."""


class LibraryNetwork(FeatureNetwork):
    """A network of a library. Its state dict has the library's keys.

    The pooled feature is the input of the last linear layer.

    Args:
        model: the library's network.
        stages: names of its modules.

    Raises:
        WrapError: a stage is not a module, or there is no linear layer.
    """

    def __init__(self, model: nn.Module, stages: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.stage_names = model, stages
        modules = dict(model.named_modules())
        for module in modules.values():
            # A later in-place activation would change a stage's map after it was read.
            if getattr(module, "inplace", False) is True:
                module.inplace = False
        for stage in stages:
            if stage not in modules or not stage:
                shallow = [name for name in modules if name and name.count(".") < 2]
                raise WrapError(f"stages: unknown module '{stage}'{suggest(stage, shallow)}")
            modules[stage].register_forward_hook(partial(_keep_output, stage))
        layers = [module for module in modules.values() if isinstance(module, nn.Linear)]
        if not layers:
            raise WrapError("it has no linear layer, which would be its classifier")
        self._final = len(layers) - 1
        layers[-1].register_forward_pre_hook(_keep_pooled)
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def forward_features(self, images: Tensor) -> Outputs:
        """Run the network once.

        Raises:
            WrapError: a stage did not run exactly once, gives no map or was changed in place, or
                the output is not one tensor of logits.
        """
        with _reading() as read:
            logits = self.network(images)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise WrapError(
                "its output in training is not one tensor of logits; options may turn the other "
                "outputs off, such as {aux_logits: false}"
            )
        maps = tuple(_only_map(stage, read.get(stage, [])) for stage in self.stage_names)
        (pooled,) = read.get("", [None])
        if pooled is None or pooled.dim() != 2:
            raise WrapError("its last linear layer does not read one pooled feature an image")
        return Outputs(logits, maps, (), pooled)

    def final_layer(self) -> nn.Module:
        """Return the last linear layer, which maps the pooled feature to the logits."""
        layers = [module for module in self.network.modules() if isinstance(module, nn.Linear)]
        return layers[self._final]


@contextlib.contextmanager
def _reading() -> Iterator[dict[str, list[Any]]]:
    """Collect what the hooks read in this thread: outputs by stage, the pooled feature by ""."""
    before = getattr(_PASS, "read", None)
    _PASS.read = {}
    try:
        yield _PASS.read
    finally:
        _PASS.read = before


def _keep_output(stage: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
    if getattr(_PASS, "read", None) is not None:
        version = output._version if isinstance(output, Tensor) and not output.is_inference() else 0
        _PASS.read.setdefault(stage, []).append((output, version))


def _keep_pooled(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if getattr(_PASS, "read", None) is not None:
        _PASS.read[""] = [inputs[0]]


def _only_map(stage: str, outputs: list[tuple[Any, int]]) -> Tensor:
    if len(outputs) != 1:
        raise WrapError(
            f"stages: {stage} runs {len(outputs)} times in a pass; name a module that runs once"
        )
    ((output, version),) = outputs
    if not isinstance(output, Tensor) or output.dim() != 4:
        what = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else "no tensor"
        raise WrapError(f"stages: {stage} gives {what}; name a module that gives (N, C, H, W)")
    if not output.is_inference() and output._version != version:
        raise WrapError(f"stages: a later layer changes the map of {stage} in place; name another")
    return output


def _without_prefix(
    _module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any
) -> None:
    for key in [key for key in state if key.startswith(prefix + INNER_PREFIX)]:
        state[prefix + key.removeprefix(prefix + INNER_PREFIX)] = state.pop(key)


def _with_prefix(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_others: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + INNER_PREFIX + key.removeprefix(prefix)] = state.pop(key)


def build_wrapped(wrapped: WrappedNetwork, num_classes: int) -> LibraryNetwork:
    """Return a new network of a library, without pretrained weights.

    Raises:
        WrapError: the library is missing, it cannot build the network as described, or an option
            would load weights or set the classes.
        UnknownNameError: the library has no such network.
    """
    names, build = _library(wrapped.library)
    if wrapped.model not in names:
        raise UnknownNameError(f"{wrapped.library} network", wrapped.model, names)
    # A name may be written without a sheet's `networks`, which are checked when they are read.
    if problem := options_problem(wrapped.options):
        raise WrapError(f"{wrapped.label}: options: {problem}")
    try:
        model = build(wrapped.model, num_classes=num_classes, **wrapped.options)
    except Exception as error:  # a library's builders raise errors of any type
        text = " ".join(str(error).split())
        raise WrapError(f"{wrapped.label}: options: {type(error).__name__}: {text}") from error
    try:
        return LibraryNetwork(model, wrapped.stages)
    except WrapError as error:
        raise WrapError(f"{wrapped.label}: {error}") from error


@cache
def _library(name: str) -> tuple[tuple[str, ...], Callable[..., nn.Module]]:
    """Return the names of a library's classifiers, and its builder.

    Raises:
        WrapError: the library is unknown or not installed.
    """
    if name == "torchvision":
        import torchvision

        names = torchvision.models.list_models(module=torchvision.models)
        return tuple(names), torchvision.models.get_model
    if name == "timm":
        try:
            import timm
        except ImportError as error:
            raise WrapError("timm is not installed: pip install 'skd[timm]'") from error
        return tuple(timm.list_models()), timm.create_model
    raise WrapError(f"unknown library '{name}'; allowed: torchvision/NAME, timm/NAME")
