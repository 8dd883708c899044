"""The type of the fixture `skd` in conftest.py."""

from collections.abc import Callable

# Runs the command in this process and returns its exit status, output and errors.
Skd = Callable[..., tuple[int, str, str]]
