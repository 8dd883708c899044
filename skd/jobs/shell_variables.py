"""Variables by which a user's shell changes what SLURM's commands print or select.

Their answers are parsed, here and by Snakemake's plugin, so none of these may reach them. Variables
that say where and how to submit (SLURM_CONF, SBATCH_ACCOUNT, SBATCH_PARTITION, …) stay. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

PREFIXES = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_", "SSHARE_")
NAMES = (
    "SLURM_BITSTR_LEN",
    "SLURM_TIME_FORMAT",
    "SBATCH_ARRAY_INX",  # a job would be an array
    "SBATCH_WAIT",  # a submission would last as long as the job
)


def misleading_names(environment: Mapping[str, str]) -> list[str]:
    """Return the names of these variables that are set."""
    return sorted(name for name in environment if name.startswith(PREFIXES) or name in NAMES)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which SLURM's commands print what they are documented to."""
    names = set(misleading_names(environment))
    kept = {name: value for name, value in environment.items() if name not in names}
    return kept | {"SLURM_TIME_FORMAT": "standard", "LC_ALL": "C"}


def remove_misleading(environment: MutableMapping[str, str]) -> list[str]:
    """Remove these variables for all processes that are started from here; return their names."""
    names = misleading_names(environment)
    for name in names:
        del environment[name]
    return names
