# The driver and its jobs must run the code in this file's clone. With two clones and one environment,
# either could find the code of the other clone, and jobs would not do what the driver planned.

import importlib.util
import os
import subprocess
from pathlib import Path

from snakemake.exceptions import WorkflowError

CLONE = Path(workflow.basedir).resolve().parent
FIND_SKD = (
    "import importlib.util as u; spec = u.find_spec('skd'); print(spec and spec.origin or '')"
)


def check_code(program, origin):
    if not origin or Path(origin).resolve() != CLONE / "skd" / "__init__.py":
        other = f"the skd of {Path(origin).resolve().parents[1]}" if origin else "no skd"
        raise WorkflowError(
            f"This workflow is in {CLONE}, but {program} finds {other}. Activate the right "
            f"environment and, in {CLONE}, pip install --editable . (or set PYTHONPATH={CLONE})"
        )


skd_spec = importlib.util.find_spec("skd")
check_code("Snakemake", skd_spec and skd_spec.origin)

# The rules' commands run `python` in this folder. With conda, they have another environment.
if not any(
    "conda" in str(method).lower() for method in workflow.deployment_settings.deployment_method
):
    try:
        completed = subprocess.run(
            ["python", "-c", FIND_SKD],
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
        )
        check_code("the command python", completed.stdout.strip())
    except FileNotFoundError:
        check_code("the command python", None)
