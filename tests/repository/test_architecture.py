"""Imports between packages, pinned requirements and committed files."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from skd.losses.discovery import term_classes
from tests.builders.paths import ROOT

MODULES = sorted(
    path
    for package in ("skd", "baselines", "report", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
)
# "Who may know whom" in docs/architecture.md: a package and the packages it may import.
RULES = re.compile(r"^(?P<package>[a-z._]+): *(?P<known>.*)$", re.MULTILINE)
# Folders whose modules also run on login nodes, and their modules that need torch.
LIGHT = ("skd/common", "skd/code", "skd/study", "skd/store", "skd/planning", "skd/jobs")
LIGHT += ("skd/provenance", "skd/cli", "skd/analyses", "report")
HEAVY = ("skd/analyses/networks",)
OUTSIDE = ("skd", "report", "skd.__main__", "report.__main__")  # only name or start others
# Paths of the repository that a page names; links to them may start with "../".
NAMED_PATH = re.compile(
    r"(?<![\w./<-])(?:\.\./)*"
    r"((?:skd|report|benchmarks|baselines|workflow|tests|tools)/[\w./{},*+-]*[\w}*])"
)
PLACEHOLDER = re.compile(r"[{}*]|NAME|DATASET")
# What the reader of README's walk-through writes.
WALK_THROUGH = (
    "baselines/nst.py",
    "tests/baselines/test_nst.py",
    "baselines/vecscale.py",
    "tests/baselines/test_vecscale.py",
    "workflow/studies/nst-on-digits.yaml",
    "skd/models/plain.py",
    "skd/data/stripes.py",
    "workflow/studies/plain-on-stripes.yaml",
)
MAX_FUNCTION_LINES = 60
LONG_FUNCTIONS = {"skd.cli.train.train": "it declares 25 arguments and options"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Return what a module imports, at its top or within its functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@cache
def rules() -> dict[str, list[str]]:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = page.split("## Who may know whom")[1].split("```")[1]
    return {match["package"]: match["known"].split() for match in RULES.finditer(block)}


@cache
def package_of(module: str) -> str | None:
    """Return the package of the rules that contains a module; None if it is not the project's."""
    parts = module.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in rules()), None)


def forbidden(importer: str, imported: str) -> bool:
    package, known = package_of(importer), package_of(imported)
    return known is not None and known != package and known not in rules()[package or ""]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_who_may_know_whom(path: Path) -> None:
    importer = name_of(path)
    assert importer in OUTSIDE or package_of(importer)
    if importer not in OUTSIDE:
        assert not {imported for imported in imports(path) if forbidden(importer, imported)}


def test_packages_import_each_other_in_one_direction_only() -> None:
    above: list[str] = []
    for package, known in rules().items():
        assert set(known) <= set(above), f"{package} names a package that comes after it"
        above.append(package)


def test_the_rules_name_no_import_that_is_not_there() -> None:
    used: dict[str, set[str | None]] = {}
    for path in MODULES:
        if (importer := name_of(path)) not in OUTSIDE:
            imported_packages = used.setdefault(str(package_of(importer)), set())
            imported_packages |= {package_of(imported) for imported in imports(path)}
    for package, known in rules().items():
        assert set(known) <= used[package], package


def test_the_import_rules_forbid_something() -> None:
    assert forbidden("baselines.kd", "skd.training.loop")
    assert forbidden("report.frames.study_frames", "skd.training")
    assert forbidden("skd.jobs.workers", "skd.training.loop")
    assert forbidden("skd.study.sheet", "skd.losses.term")
    assert forbidden("skd.models.resnet", "skd.terms")
    assert forbidden("skd.training.loop", "baselines.kd")
    assert not forbidden("report.frames.study_frames", "skd.store.store")


def light_modules() -> list[str]:
    folders = [path for path in MODULES if path.relative_to(ROOT).as_posix().startswith(LIGHT)]
    heavy = [path for path in folders if path.relative_to(ROOT).as_posix().startswith(HEAVY)]
    return [name_of(path) for path in folders if path not in heavy and path.stem != "__main__"]


def test_importing_all_of_what_runs_on_login_nodes_imports_no_torch() -> None:
    modules = light_modules()
    assert {"skd.analyses.records", "skd.cli.train", "report.output.page"} <= {*modules}
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, check=True)


def test_the_workflow_imports_no_torch() -> None:
    light = {*light_modules()}
    for path in [ROOT / "workflow" / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]:
        imported = re.findall(r"^\s*(?:from|import) (\S+)", path.read_text(), re.MULTILINE)
        known = ("snakemake", *sys.stdlib_module_names)
        assert all(within(name, *known) or name in light for name in imported), path


@pytest.mark.parametrize("path", sorted((ROOT / "skd" / "training").glob("*.py")), ids=name_of)
def test_training_names_no_method(path: Path) -> None:
    words = set(re.findall(r"[a-z]+", path.read_text().lower()))
    english = {"at"}
    methods = {"kd", "simplifier", "simplified", *term_classes()} - {"cross_entropy"} - english
    assert not words & methods


def test_the_snakefile_is_short() -> None:
    assert len((ROOT / "workflow" / "Snakefile").read_text().splitlines()) < 60


def named_paths(page: Path) -> set[str]:
    """Return the paths of the repository that a page names, without placeholders."""
    paths = {found[1] for found in NAMED_PATH.finditer(page.read_text(encoding="utf-8"))}
    return {path for path in paths if not PLACEHOLDER.search(path)}


@pytest.mark.parametrize(
    "page",
    [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"],
    ids=lambda page: page.name,
)
def test_the_paths_that_a_page_names_exist(page: Path) -> None:
    assert not {
        path
        for path in named_paths(page)
        if path not in WALK_THROUGH and not (ROOT / path).exists()
    }


def test_paths_are_recognised_in_text_and_in_links(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "See `skd/common/gone.py`, [sheet](../workflow/gone.yaml), baselines/*.py, "
        "`report/published/DATASET.csv`, `workflow/studies/NAME.yaml` and results/report/gone.py."
    )
    assert named_paths(page) == {"skd/common/gone.py", "workflow/gone.yaml"}


def function_lengths(path: Path) -> dict[str, int]:
    """Return the number of lines of each function of a module, without its decorators."""
    return {
        f"{name_of(path)}.{node.name}": node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_functions_are_short() -> None:
    lengths: dict[str, int] = {}
    for path in [*MODULES, *(ROOT / "tools").glob("*.py")]:
        lengths |= function_lengths(path)
    assert {name for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {
        *LONG_FUNCTIONS
    }


def test_the_suite_is_pinned_and_conda_has_the_same_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # The library and the optional packages share an environment with other projects.
    shared = [project["dependencies"], extras["onnx"], extras["tensorboard"], extras["timm"]]
    assert all(">=" in pin for pins in shared for pin in pins)
    ranged = [pin for pin in extras["suite"] if "==" not in pin]
    assert ranged == ["torchvision>=0.26"]  # a cluster's own build
    exact = [pin for pin in extras["suite"] if pin not in ranged]
    everything = [*exact, *extras["pinned"], *extras["dev"]]
    assert all("==" in pin for pin in everything)
    pinned = {name_of_pin(pin): pin for pin in everything}
    for pin in (pin for pins in shared for pin in pins):
        assert Version(pinned[name_of_pin(pin)].split("==")[1]) >= Version(pin.split(">=")[1]), pin
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert sorted(conda[-1]["pip"]) == sorted(everything)
    assert conda[:-1] == [f"python{project['requires-python']}", "pip", "make"]
    assert "--editable '.[pinned,suite,dev]'" in (ROOT / "Makefile").read_text()


def name_of_pin(pin: str) -> str:
    return re.split("[>=]", pin)[0]


def test_nothing_committed_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    # Joined here, so that this file does not contain them.
    machine = [f"/{folder}/" for folder in ("work", "home", "root")]
    registries = ["py" + "pi.org", "python" + "hosted"]
    named = "|".join(map(re.escape, machine + registries))
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png", ".svg", ".npz", ".pt"):
            assert not re.search(named, path.read_text()), name
