"""The error of an analysis about a stored file."""

from __future__ import annotations

from skd.common.errors import SkdError


class UnusableError(SkdError):
    """A stored file is missing or cannot be used. The message is a phrase with the reason."""
