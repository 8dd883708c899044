"""Benchmarks of this project's training step against common practice."""
