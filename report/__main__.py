"""``python -m report STUDY``, the same as ``skd-report STUDY``."""

from report.cli import main

if __name__ == "__main__":
    main()
