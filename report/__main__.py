"""``python -m report STUDY``, the same as ``skd-report STUDY``."""

from skd.cli.report import main

if __name__ == "__main__":
    main()
