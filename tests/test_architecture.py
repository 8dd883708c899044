"""Who may know whom, what is pinned, and what is committed."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from skd.terms import term_classes

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    path for package in ("skd", "baselines", "report") for path in (ROOT / package).rglob("*.py")
)
# Read by workflow and report, on login nodes too: no torch, and nothing that imports it.
LIGHT = (
    "skd",
    "skd.analyses",
    "skd.analyses.cache",
    "skd.analyses.checks",
    "skd.analyses.commands",
    "skd.analyses.findings",
    "skd.analyses.outputs",
    "skd.analyses.records",
    "skd.analyses.sources",
    "skd.analyses.stated",
    "skd.analyses.stock",
    "skd.analyses.study",
    "skd.authoring",
    "skd.authoring.commands",
    "skd.authoring.scaffold",
    "skd.bench",
    "skd.bench.cases",
    "skd.bench.commands",
    "skd.bench.comparing",
    "skd.bench.limits",
    "skd.bench.loader_command",
    "skd.bench.loader_results",
    "skd.bench.measure",
    "skd.bench.process",
    "skd.bench.progress",
    "skd.bench.results",
    "skd.bench.rows",
    "skd.bench.running",
    "skd.bench.sides",
    "skd.bench.tables",
    "skd.bench.variants",
    "skd.bounds",
    "skd.cli",
    "skd.code",
    "skd.code.accepted",
    "skd.code.accepting",
    "skd.code.closure",
    "skd.code.commands",
    "skd.code.digests",
    "skd.code.sources",
    "skd.code.stale",
    "skd.collapse",
    "skd.discovery",
    "skd.effects",
    "skd.command_line",
    "skd.errors",
    "skd.files",
    "skd.jobs",
    "skd.jobs.batches",
    "skd.jobs.commands",
    "skd.jobs.configuration",
    "skd.jobs.driver",
    "skd.jobs.errors",
    "skd.jobs.gpu",
    "skd.jobs.launch",
    "skd.jobs.outputs",
    "skd.jobs.overview",
    "skd.jobs.packing",
    "skd.jobs.requests",
    "skd.jobs.shell_variables",
    "skd.jobs.sharing",
    "skd.jobs.slurm",
    "skd.jobs.watching",
    "skd.jobs.workers",
    "skd.kernels",
    "skd.kernels.command",
    "skd.kernels.search",
    "skd.kernels.tables",
    "skd.judging",
    "skd.lease",
    "skd.names",
    "skd.limits",
    "skd.looking",
    "skd.leftovers",
    "skd.living",
    "skd.planning",
    "skd.planning.budget",
    "skd.planning.commands",
    "skd.planning.devices",
    "skd.planning.graph",
    "skd.planning.lanes",
    "skd.planning.model",
    "skd.planning.plan",
    "skd.planning.simulate",
    "skd.planning.steps",
    "skd.planning.survey",
    "skd.planning.tables",
    "skd.planning.teacher_views",
    "skd.planning.timings",
    "skd.provenance",
    "skd.provenance.checking",
    "skd.provenance.commands",
    "skd.provenance.comparing",
    "skd.provenance.document",
    "skd.provenance.facts",
    "skd.provenance.finding",
    "skd.provenance.merge_words",
    "skd.provenance.merging",
    "skd.provenance.planning",
    "skd.provenance.reading",
    "skd.provenance.shown",
    "skd.recipes",
    "skd.records",
    "skd.sheet",
    "skd.sheet_files",
    "skd.published",
    "skd.sheet_entry",
    "skd.spec",
    "skd.status",
    "skd.store",
    "skd.stored",
    "skd.study",
    "skd.system_errors",
    "skd.teacher_checks",
    "skd.teacher_views",
    "skd.terminal",
    "skd.temporary",
    "skd.training.commands",
    "skd.training.options",
    "skd.training.stopping",
    "skd.training.views_command",
    "skd.yaml_reading",
    "skd.wording",
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Return what a module imports when it is imported, not within its functions."""
    tree, found = ast.parse(path.read_text()), set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def forbidden(importer: str, imported: str) -> bool:
    if within(importer, "baselines"):
        own = within(imported, "baselines", "skd.terms")
        return within(imported, "skd", "report", "baselines") and not own
    if within(importer, "report"):
        return within(imported, "torch", "torchvision", "baselines") or (
            within(imported, "skd")
            and not within(imported, *(name for name in LIGHT if name != "skd"))
            and imported != "skd"
        )
    if importer == "skd.cli" and imported in ("report.commands", "report.commands.diff"):
        return False  # the command line is where all meet
    if within(importer, "skd.models"):
        return within(imported, "skd", "report", "baselines") and not within(
            imported, "skd.models", "skd.discovery", "skd.errors"
        )
    if within(importer, "skd.kernels"):
        return within(imported, "skd", "report", "baselines") and not within(
            imported, "skd.kernels", "skd.errors", "skd.files"
        )
    if within(importer, "skd.data"):
        known = ("skd.data", "skd.discovery", "skd.errors", "skd.files", "skd.lease")
        return within(imported, "skd", "report", "baselines") and not within(
            imported, *known, "skd.randomness", "skd.spec"
        )
    if importer in LIGHT:
        return within(imported, "torch", "torchvision", "report", "baselines") or (
            within(imported, "skd") and imported.count(".") == 1 and imported not in LIGHT
        )
    if within(importer, "skd.training"):
        return within(imported, "report", "baselines")
    return within(imported, "report") or (within(imported, "baselines") and importer != "skd.terms")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_who_may_know_whom(path: Path) -> None:
    importer = name_of(path)
    assert not {imported for imported in imports(path) if forbidden(importer, imported)}


def test_the_import_rules_forbid_something() -> None:
    assert forbidden("baselines.kd", "skd.training.loop")
    assert forbidden("report.frame", "skd.training")
    assert forbidden("report.frame", "torch")
    assert forbidden("skd.study", "skd.terms")
    assert forbidden("skd.models.resnet", "skd.terms")
    assert forbidden("skd.training.loop", "baselines.kd")
    assert not forbidden("report.frame", "skd.store")


def test_the_workflow_imports_no_torch() -> None:
    for path in [ROOT / "workflow" / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]:
        imported = re.findall(r"^\s*(?:from|import) (\S+)", path.read_text(), re.MULTILINE)
        known = ("snakemake", *sys.stdlib_module_names)
        assert all(within(name, *known) or name in LIGHT for name in imported), path


@pytest.mark.parametrize("path", sorted((ROOT / "skd" / "training").glob("*.py")), ids=name_of)
def test_training_names_no_method(path: Path) -> None:
    words = set(re.findall(r"[a-z]+", path.read_text().lower()))
    english = {"at"}
    methods = {"kd", "simplifier", "simplified", *term_classes()} - {"cross_entropy"} - english
    assert not words & methods


def test_the_snakefile_is_short() -> None:
    assert len((ROOT / "workflow" / "Snakefile").read_text().splitlines()) < 60


def test_everything_is_pinned_and_conda_has_the_same_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranged = [pin for pin in project["dependencies"] if "==" not in pin]
    assert [re.split("[>=]", pin)[0] for pin in ranged] == ["torch", "torchvision"]
    extras = project["optional-dependencies"]
    pinned = [re.split("[>=]", pin)[0] for pin in extras["pinned"] if "==" in pin]
    assert pinned == ["torch", "torchvision"]
    assert all("==" in pin for pin in extras["dev"])
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    exact = [pin for pin in project["dependencies"] if pin not in ranged]
    assert sorted(conda[-1]["pip"]) == sorted([*exact, *extras["pinned"], *extras["dev"]])
    assert conda[:-1] == [f"python{project['requires-python']}", "pip", "make"]
    assert "--editable '.[pinned,dev]'" in (ROOT / "Makefile").read_text()


def test_nothing_committed_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    # Put together here, so that this file does not name them.
    machine = [f"/{folder}/" for folder in ("work", "home", "root")]
    registries = ["py" + "pi.org", "python" + "hosted"]
    named = "|".join(map(re.escape, machine + registries))
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png", ".svg", ".npz"):
            assert not re.search(named, path.read_text()), name
