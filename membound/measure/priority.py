"""Asks the kernel to wake this process on time."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

# The lowest of the real-time priorities: before all ordinary work, behind whatever the system runs in real time itself.
_REAL_TIME: Final = 1
# Where that is not permitted: above ordinary work.
_NICE: Final = -10
# PR_SET_TIMERSLACK (prctl(2)): the kernel may otherwise be 50 µs late on purpose.
_TIMER_SLACK: Final = 29
_SLACK_NS: Final = 1000


def raise_own() -> str:
    """Raise the priority of this thread, and of those that it starts, as far as is permitted; in words, what was had.

    In real time a thread is never kept waiting by ordinary work. The sampler sleeps most of the time, so nobody else goes short.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_TIMER_SLACK, ctypes.c_ulong(_SLACK_NS), 0, 0, 0)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_REAL_TIME))
        return "real time (SCHED_FIFO 1)"
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        return f"nice {_NICE}"
    return "ordinary: a higher one is not permitted (CAP_SYS_NICE)"
