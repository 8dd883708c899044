"""How a run may be executed: the values that options, configuration and the loop share."""

from typing import Literal

StepKind = Literal["fast", "eager", "plain"]
When = Literal["auto", "always", "never"]
Precision = Literal["float32", "bfloat16"]
TeacherOutputs = Literal["live", "float16", "float32"]
# A compiler takes about a minute for a network; a step of a small one gains half a millisecond.
# A run of 64 epochs of CIFAR-100 (782 steps each) recovers this time even without lanes.
COMPILE_STEPS = 50_000
