"""Recording a step as a CUDA graph: one launch replays all its kernels, with no Python between.

A recorded step reads and writes the tensors it was recorded with, so all that changes from step to
step lies in tensors that keep their place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Generator, Tensor

WARM_UPS = 3  # as PyTorch advises: libraries set themselves up at their first calls
# A process's runs record in turns: to begin a recording waits for the whole device.
_RECORDING = threading.Lock()


def record(
    step: Callable[[], None],
    state: Callable[[], Mapping[str, Tensor]],
    generators: Callable[[], Iterable[Generator]] = tuple,
) -> Callable[[], None]:
    """Return a function that replays a step; ``state`` is left as it was.

    The step is tried first, for what libraries and it set up at first; what it moves is put back.

    Args:
        step: works on the GPU without asking it anything.
        state: returns all tensors that a step moves, by name. What a step adds to them starts
            from 0.
        generators: returns those that it draws from; they are seeded before each replay.

    Raises:
        RuntimeError: the step cannot be recorded, by CUDA's or PyTorch's word.
    """
    with _RECORDING:
        kept = {name: tensor.clone() for name, tensor in state().items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    step()
        finally:
            torch.cuda.current_stream().wait_stream(stream)
            put_back(state(), kept)
        graph = torch.cuda.CUDAGraph()
        for generator in generators():
            graph.register_generator_state(generator)
        # Other runs of the process may allocate meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            step()
    return graph.replay


@torch.no_grad()
def put_back(state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """Give tensors the values they had, in place; those that are new become 0."""
    for name, tensor in state.items():
        if name in kept:
            tensor.copy_(kept[name])
        else:
            tensor.zero_()
