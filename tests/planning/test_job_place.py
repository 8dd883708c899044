"""Where jobs run."""

from dataclasses import replace

import pytest

from skd.planning.devices import DEVICE_MODELS, PlannedDevice
from skd.planning.job_place import CLUSTER, choose_place, this_machine
from tests.builders.planned_studies import CPU, GPU

A100 = PlannedDevice("NVIDIA A100-SXM4-40GB", DEVICE_MODELS["a100"])


@pytest.mark.parametrize(
    ("device", "gpu", "has_slurm", "place"),
    [
        (CPU, None, False, "local"),
        (CPU, None, True, "cluster"),
        (GPU, None, False, "cluster"),  # a plan for another machine
        (GPU, "NVIDIA A100-SXM4-40GB", False, "local"),
        (GPU, "NVIDIA A100-SXM4-40GB", True, "cluster"),
        (GPU, "NVIDIA H200", False, "cluster"),
        (A100, "NVIDIA A100-SXM4-40GB", False, "local"),
        (A100, "NVIDIA A100-PCIE-40GB", False, "cluster"),
    ],
)
def test_auto(device, gpu, has_slurm, place) -> None:
    assert choose_place("auto", device, 8, gpu, has_slurm).name == place


def test_a_choice_counts_whatever_the_machine_has() -> None:
    assert choose_place("cluster", CPU, 8, None, False) == CLUSTER
    assert choose_place("local", GPU, 8, None, True).is_local


@pytest.mark.parametrize(
    ("device", "cores", "counts"),
    [
        (CPU, 1, (1,)),
        (CPU, 2, (1, 2)),
        (CPU, 12, (1, 2, 4, 8, 12)),
        (replace(CPU, threads=4), 12, (1, 2, 3)),
        (replace(CPU, threads=4), 2, (1,)),
        (GPU, 64, (1,)),  # all jobs of a machine share its GPU
        (replace(GPU, processes=4), 64, (1, 2, 4)),
    ],
)
def test_the_devices_of_this_machine(device, cores, counts) -> None:
    assert this_machine(device, cores).device_counts == counts
