"""``python -m report STUDY``, the same as ``skd-report STUDY``."""

from skd.common.extras import run_with_extras


def main() -> None:
    """Run `skd-report`. A package that is not installed is an error with one line."""
    run_with_extras("skd-report", _run)


def _run() -> None:
    from skd.cli.report import main as run

    run()


if __name__ == "__main__":
    main()
