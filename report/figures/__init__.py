"""The figures of the report, one function each, in a common style."""
