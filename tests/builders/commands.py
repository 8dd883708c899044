"""What the fixture `skd` of conftest.py gives."""

from collections.abc import Callable

# Runs the command in this process: its exit status, output and errors.
Skd = Callable[..., tuple[int, str, str]]
