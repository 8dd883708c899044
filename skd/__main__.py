"""`python -m skd` is the `skd` command."""

from skd.cli.main import main

main()
