"""The source files that a run's numbers are computed from, before their imports."""

from __future__ import annotations

from collections.abc import Callable

from skd.study.spec import DatasetSpec, RunSpec

LOOP_FILE = "skd/training/loop.py"
VIEWS_FILE = "skd/training/stored_views.py"


def run_source_roots(spec: RunSpec, family: Callable[[str], str]) -> list[str]:
    """Return the source files that compute a run's numbers, before their imports.

    Args:
        spec: the run.
        family: returns the module of ``skd/models`` that defines a network, by the network's name.
    """
    networks = [spec.network, *([spec.teacher.network] if spec.teacher else [])]
    networks += [spec.partner] if spec.partner else []
    families = [f"skd/models/{family(name)}.py" for name in networks]
    parts = [term.term for term in spec.method.terms]
    parts += [transformation.name for transformation in spec.method.transformations]
    losses = [f"baselines/{name}.py" for name in parts]
    return list(dict.fromkeys([LOOP_FILE, f"skd/data/{spec.dataset.name}.py", *families, *losses]))


def views_source_roots(dataset: DatasetSpec, family: str) -> list[str]:
    """Return the source files that compute the stored views of a teacher, before their imports.

    Args:
        dataset: the images.
        family: the module of ``skd/models`` that defines the teacher's network.
    """
    return [VIEWS_FILE, f"skd/data/{dataset.name}.py", f"skd/models/{family}.py"]
