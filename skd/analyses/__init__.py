"""Analyses of finished runs beyond accuracy, from their stored files: `skd analyse`."""
