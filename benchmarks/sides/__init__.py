"""The sides of a comparison, each built in a process of its own. Imports torch."""
