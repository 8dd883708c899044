"""Environment variables that change what SLURM's commands print or select. Imports no torch.

This package and Snakemake's plugin parse the output of these commands, so the variables must not
reach them. Variables for submission (SLURM_CONF, SBATCH_ACCOUNT, SBATCH_PARTITION, …) stay.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

PREFIXES = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_", "SSHARE_")
NAMES = (
    "SLURM_BITSTR_LEN",
    "SLURM_TIME_FORMAT",
    "SBATCH_ARRAY_INX",  # would make each job an array
    "SBATCH_WAIT",  # would make a submission wait for the end of its job
)


def misleading_names(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the misleading variables that are set."""
    return sorted(name for name in environment if name.startswith(PREFIXES) or name in NAMES)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which SLURM's commands print their documented output."""
    names = set(misleading_names(environment))
    rest = {name: value for name, value in environment.items() if name not in names}
    return rest | {"SLURM_TIME_FORMAT": "standard", "LC_ALL": "C"}


def remove_misleading(environment: MutableMapping[str, str]) -> list[str]:
    """Remove the misleading variables from an environment; return their names."""
    names = misleading_names(environment)
    for name in names:
        del environment[name]
    return names
