"""Our training step beside the field's common practice, measured."""
