"""How a run is trained: the loop, checkpoints, teachers, evaluation."""
