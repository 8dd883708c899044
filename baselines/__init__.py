"""Loss terms, one file per rule. They import only `skd.terms` and torch. See CONTRIBUTING.md."""
