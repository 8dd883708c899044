"""The values that options, configuration files and stored files share. Imports no torch."""

from typing import Literal

# How a training step is computed: skd.training.execution.Execution.step.
StepMode = Literal["fast", "eager", "plain"]
# Whether an optional fast path is used: torch.compile, or this project's kernels.
FastPathMode = Literal["auto", "always", "never"]
# Precision of forward passes and losses in training.
Precision = Literal["float32", "bfloat16"]
# The outputs of a teacher that can be stored, and the precision in which they are stored.
ViewsOutput = Literal["logits", "pooled"]
ViewsPrecision = Literal["float16", "float32"]
# Whether the outputs of teachers are stored.
TeacherViewsMode = Literal["auto", "always", "never"]
# Where a run takes its teacher's outputs from: a forward pass each step, or stored views.
TeacherSource = Literal["live", "float16", "float32"]
# What a user can choose; auto: stored views if there are any, otherwise live.
TeacherSourceChoice = Literal["auto", "live", "float16", "float32"]
# A run with at least this number of steps is compiled. Compiling a network takes about a minute
# and saves about half a millisecond per step of a small network: 64 epochs of CIFAR-100 (782 steps
# each) recover this time even without lanes.
COMPILE_STEPS = 50_000
# A log of each run's epochs, beside the record.
RunLog = Literal["none", "tensorboard"]
