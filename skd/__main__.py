"""`python -m skd` is the `skd` command."""

from skd.cli import main

main()
