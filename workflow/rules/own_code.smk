# The driver and its jobs must run the code beside this file: with two clones and one environment
# either may find the other's, and no job would do what the driver planned.

import importlib.util
import os
import subprocess
from pathlib import Path

from snakemake.exceptions import WorkflowError

CLONE = Path(workflow.basedir).resolve().parent
FIND = "import importlib.util as u; found = u.find_spec('skd'); print(found and found.origin or '')"


def check_code(whose, origin):
    if not origin or Path(origin).resolve() != CLONE / "skd" / "__init__.py":
        found = f"the skd of {Path(origin).resolve().parents[1]}" if origin else "no skd"
        raise WorkflowError(
            f"This workflow is {CLONE}'s, but {whose} finds {found}. Activate the right environment "
            f"and, in {CLONE}, pip install --editable . (or set PYTHONPATH={CLONE})"
        )


here = importlib.util.find_spec("skd")
check_code("Snakemake", here and here.origin)

# As the rules' commands do, in the folder where they do; with conda their environment is another.
if not any(
    "conda" in str(method).lower() for method in workflow.deployment_settings.deployment_method
):
    try:
        asked = subprocess.run(
            ["python", "-c", FIND],
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
        )
        check_code("the command python", asked.stdout.strip())
    except FileNotFoundError:
        check_code("the command python", None)
