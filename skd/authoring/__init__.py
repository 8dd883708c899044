"""Tools for authors of loss terms: a skeleton, and checks that every method must pass."""
