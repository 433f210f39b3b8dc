"""What cuDNN's attention takes where it meets a row length for the first time: it builds an execution graph for each shape, and keeps it.

Medians of lengths whose alignment had come up before, two H200, PyTorch 2.11, cuDNN 9.19: forward 39.7 to 54.6 ms, backward 45.0 to 66.9
(validation/kernels/h200.csv, family `lengths`); the first length of each alignment takes 0.5 to 1.0 s and 0.63 to 0.69 s. Predictions are of steps
whose lengths have all come up: these are for comparing with the first steps of a training.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from membound.cost.law import Array

FORWARD: Final = 40.3e-3
"""s; once for all layers, which share the shape."""
BACKWARD: Final = 47.8e-3
"""s; likewise."""
STEP: Final = FORWARD + BACKWARD
"""s; of a step of one micro-step."""


def first_met(likely: Array, before: int, steps: int) -> float:
    """Share of `steps`, after so many `before` them, whose length has not come up yet, where lengths are as `likely` as that; expected.

    Args: `likely` has the probability of each length, [lengths], sum 1.
    """
    at = np.arange(before, before + steps)
    return float((likely * (1 - likely) ** at[:, None]).sum() / steps)
