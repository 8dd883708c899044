"""Student-friendly Knowledge Distillation: a reproduction harness (arXiv 2305.10893)."""

__version__ = "0.1.0"
