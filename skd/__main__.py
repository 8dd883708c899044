"""`python -m skd` is the `skd` command."""

from skd.common.extras import run_with_extras


def main() -> None:
    """Run the `skd` command. A package that is not installed is an error with one line."""
    run_with_extras("skd", _run)


def _run() -> None:
    from skd.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
