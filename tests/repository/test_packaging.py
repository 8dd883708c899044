"""What is installed: small dependencies of the library, named extras, one module for each file."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from skd.common.extras import EXTRAS, MissingExtraError, require_extra
from tests.builders.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Run in a process that has the dependencies of the library only.
BLOCK = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Finder())
"""


def run(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    blocked = {module for modules in EXTRAS.values() for module in modules}
    code = BLOCK.format(blocked=blocked) + code
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def distributions(pins: list[str]) -> set[str]:
    return {re.split("[>=]", pin)[0].lower().replace("_", "-") for pin in pins}


def test_the_table_of_extras_is_that_of_the_project() -> None:
    own = distributions(PROJECT["dependencies"])
    by_module = importlib.metadata.packages_distributions()
    for extra, modules in EXTRAS.items():
        wanted = distributions(PROJECT["optional-dependencies"][extra]) - own
        assert len(modules) == len(wanted), extra
        for module in modules:
            if module in by_module:
                found = {name.lower().replace("_", "-") for name in by_module[module]}
                assert found & wanted, module


def test_importing_skd_imports_no_torch_and_the_library_on_demand() -> None:
    done = run(
        "import skd\n"
        "assert 'torch' not in sys.modules\n"
        "library = skd.library\n"
        "assert 'torch' in sys.modules and library is sys.modules['skd.library']\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_library_needs_its_own_dependencies_only() -> None:
    done = run(
        "import torch\n"
        "from skd import library\n"
        "student, teacher = (library.network(name, 10) for name in ('resnet8', 'wrn_16_1'))\n"
        "labels = torch.arange(20) % 10\n"
        "for method in ('skd+kd', 'crd', 'reviewkd'):\n"
        "    loss = library.objective(method, student=student, teacher=teacher, num_classes=10,\n"
        "        train_labels=labels)\n"
        "    loss.begin_epoch(1)\n"
        "    loss(torch.randn(4, 3, 32, 32), labels[:4], torch.arange(4)).total.backward()\n"
        "assert len(dir(library.losses)) > 10\n"
    )
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr


@pytest.mark.parametrize("program", ["skd", "report"])
def test_a_command_names_the_extra_that_it_lacks(program: str) -> None:
    done = run(f"import runpy\nrunpy.run_module({program!r}, run_name='__main__')\n")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "needs the package typer; install it with the extra 'suite'" in done.stderr


def test_an_extra_that_is_installed_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extra("suite", "this test")
    monkeypatch.setitem(EXTRAS, "timm", ("no_such_module",))
    with pytest.raises(MissingExtraError, match="wrap: timm needs the package no_such_module; "):
        require_extra("timm", "wrap: timm")


def test_each_file_is_one_module() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, collections, pathlib\n"
            "import skd.cli.main, skd.cli.report, report.output.write\n"
            "from skd import library\n"
            "from skd.losses.discovery import term_classes\n"
            "from baselines.kd import KD\n"
            "assert library.term_class('kd') is term_classes()['kd'] is KD\n"
            "files = collections.Counter(pathlib.Path(module.__file__).resolve()\n"
            "    for module in [*sys.modules.values()] if getattr(module, '__file__', None))\n"
            f"own = {{path: n for path, n in files.items() if path.is_relative_to({str(ROOT)!r})\n"
            "    and '.venv' not in path.parts}\n"
            "assert len(own) > 200 and set(own.values()) == {1}, own\n",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_another_package_with_the_name_baselines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "__init__.py").touch()
    code = f"sys.path.insert(0, {str(tmp_path)!r})\n"
    done = run(f"{code}from skd import library\nlibrary.term_class('kd')\n", cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"the package baselines of this project is in {ROOT / 'baselines'}" in last
    assert f"but Python finds {tmp_path / 'baselines'}" in last
