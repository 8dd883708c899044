"""Loss terms, one file a rule. They know only `skd.terms` and torch. See CONTRIBUTING.md."""
