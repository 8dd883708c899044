"""The code of a record: the digest of its sources and the commit of its repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skd.code.sources import code_version, source_files, sources_id, subprocess_environment
from skd.store.record_differences import code_text, same_code
from tests.builders.paths import ROOT

COMMITTED = {"git_commit": "c0ffee", "git_clean": True}


def git(folder: Path, *arguments: str) -> str:
    me = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    done = subprocess.run(
        ["git", *me, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def make_package(folder: Path) -> Path:
    """Write a package of a few files, and return the folder that contains it."""
    for name in ("skd/a.py", "skd/a/b.py", "skd/losses/methods.yaml", "baselines/kd.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")
    return folder


def make_repository(folder: Path) -> str:
    """Turn a folder into a repository, commit all its files, and return the commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "all")
    return git(folder, "rev-parse", "HEAD")


def test_the_digest_does_not_depend_on_where_the_sources_are(tmp_path: Path) -> None:
    one, other = make_package(tmp_path / "one"), make_package(tmp_path / "deep" / "other")
    before = sources_id(one)
    assert sources_id(other) == before
    (other / "skd" / "notes.txt").write_text("no source")
    (other / "skd" / "__pycache__").mkdir()
    (other / "skd" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"compiled")
    (other / "skd" / ".#a.py").symlink_to("somebody@somewhere")  # an editor's lock
    assert sources_id(other) == before


@pytest.mark.parametrize("name", ["skd/a.py", "skd/losses/methods.yaml", "baselines/kd.py"])
def test_a_changed_renamed_or_added_source_changes_the_digest(tmp_path: Path, name: str) -> None:
    folder = make_package(tmp_path)
    digests = {sources_id(folder)}
    path = folder / name
    path.write_text("other")
    digests.add(sources_id(folder))
    path.rename(path.with_name(f"renamed{path.suffix}"))
    digests.add(sources_id(folder))
    path.write_text("")
    digests.add(sources_id(folder))
    assert len(digests) == 4


def test_this_projects_digest_is_that_of_the_command_in_the_docs() -> None:
    names = [name for name, _ in source_files()]
    assert {"skd/training/loop.py", "skd/losses/methods.yaml", "baselines/kd.py"} <= set(names)
    page = (ROOT / "docs" / "provenance.md").read_text()
    (command,) = [line.strip() for line in page.splitlines() if "xargs sha256sum" in line]
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sources_id()


def test_the_commit_is_that_of_the_projects_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_package(tmp_path / "own")
    commit = make_repository(folder)
    digest = sources_id(folder)
    assert code_version(folder) == {"git_commit": commit, "git_clean": True, "sources": digest}
    for name in ("GIT_DIR", "GIT_OBJECT_DIRECTORY"):  # as a hook of another repository sees it
        monkeypatch.setenv(name, str(tmp_path / "none"))
        assert code_version(folder)["git_commit"] == commit
        monkeypatch.delenv(name)
    (tmp_path / "link").symlink_to(folder)
    assert code_version(tmp_path / "link")["git_commit"] == commit
    (folder / "skd" / "new.py").touch()
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")  # as in a user's ~/.gitconfig
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "status.showUntrackedFiles")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "no")
    assert code_version(folder)["git_clean"] is False
    (folder / "skd" / "new.py").unlink()
    assert code_version(folder)["git_clean"] is True
    (folder / "skd" / "a.py").write_text("changed")
    changed = code_version(folder)
    assert (changed["git_commit"], changed["git_clean"]) == (commit, False)
    assert changed["sources"] != digest


def test_a_repository_without_commits_has_no_commit(tmp_path: Path) -> None:
    folder = make_package(tmp_path / "project" / "release")
    none = {"git_commit": None, "git_clean": None, "sources": sources_id(folder)}
    assert code_version(folder) == none
    make_repository(tmp_path / "project")
    assert code_version(folder) == none
    git(folder, "init", "--quiet")  # its own, and nothing committed yet
    assert code_version(folder) == none


def test_a_release_unpacked_in_another_repository_records_its_digest_alone(tmp_path: Path) -> None:
    release = tmp_path / "project" / "skd-0.1.0"
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("skd", "baselines"):
        shutil.copytree(ROOT / package, release / package, ignore=ignored)
    make_repository(tmp_path / "project")
    code = (
        "import json; from skd.training.environment import environment; "
        "print(json.dumps(environment()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(release), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    recorded = json.loads(done.stdout)
    assert (recorded["git_commit"], recorded["git_clean"]) == (None, None)
    assert recorded["sources"] == sources_id(release)


@pytest.mark.parametrize(
    ("current", "recorded", "same"),
    [
        ({"sources": "a"}, {"sources": "a"}, True),
        ({"sources": "a"}, {"sources": "b"}, False),
        ({"sources": "a"}, {}, None),
        ({}, {}, None),
        (COMMITTED, COMMITTED, True),
        (COMMITTED, {**COMMITTED, "git_clean": False}, None),
        (COMMITTED, {**COMMITTED, "git_commit": "beef"}, None),
        ({**COMMITTED, "sources": "a"}, COMMITTED, True),
        ({**COMMITTED, "sources": "a"}, {**COMMITTED, "sources": "b"}, False),
        ({**COMMITTED, "sources": "a"}, {"git_commit": None, "sources": "a"}, True),
        ({"git_commit": None, "git_clean": True}, {"git_commit": None, "git_clean": True}, None),
    ],
)
def test_the_same_code_is_the_same_digest_or_the_same_clean_commit(current, recorded, same) -> None:
    assert same_code(current, recorded) is same
    assert same_code(recorded, current) is same


def test_the_files_whose_code_differs_are_named() -> None:
    one = {**COMMITTED, "sources": "aa"}
    assert code_text(one, one) == "made by the same code: sources aa"
    assert code_text(COMMITTED, one) == "made by the same code: commit c0ffee, clean"
    assert code_text(one, {**one, "git_clean": False, "sources": "bb"}) == (
        "made by different code: commit c0ffee, clean (here), commit c0ffee, WITH UNCOMMITTED "
        "CHANGES (there); sources aa (here), sources bb (there)"
    )
    assert code_text({}, {"git_commit": None, "git_clean": None}) == (
        "not known whether the same code made both: commit not known (both); sources not recorded "
        "(both)"
    )


def test_a_process_of_ours_runs_our_code_beside_another_clone(tmp_path: Path) -> None:
    (tmp_path / "skd").mkdir()
    (tmp_path / "skd" / "__init__.py").touch()
    command = [sys.executable, "-c", "import skd; print(skd.__file__)"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=subprocess_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(ROOT / "skd" / "__init__.py")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_the_commit_of_another_users_clone_is_recorded(tmp_path: Path) -> None:
    folder = make_package(tmp_path / "own")
    commit = make_repository(folder)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    assert (
        "dubious ownership"
        in subprocess.run(
            ["git", "-C", folder, "status"], capture_output=True, text=True, check=False
        ).stderr
    )
    assert code_version(folder)["git_commit"] == commit
    assert code_version(folder)["git_clean"] is True
