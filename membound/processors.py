"""How much of this computer one process may use."""

from __future__ import annotations

import os
import sys


def usable() -> int:
    """Processors that this process may run on, 1 or more: fewer than the computer has where its affinity is bound."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
