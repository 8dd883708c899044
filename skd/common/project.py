"""The folder and the packages of this project."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("skd", "baselines")  # whose code can affect a training
