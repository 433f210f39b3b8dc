"""A Trace on a Machine: what memory it takes, on the GPU and on the host, and whether that fits."""

from __future__ import annotations

from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.gpu_memory import gpu_memory
from membound.replay.host_memory import host_memory
from membound.replay.pace import Pace
from membound.replay.result import Memory
from membound.replay.script import Scripts
from membound.replay.walked import Forgetful, Memo
from membound.spec.machine import Machine
from membound.trace.schema import Trace

_DEFAULTS = AllocatorSettings()
_FORGETFUL = Forgetful()


def replay(
    trace: Trace | Scripts, machine: Machine, settings: AllocatorSettings = _DEFAULTS, memo: Memo = _FORGETFUL, pace: Pace | None = None
) -> Memory:  # fmt: skip
    """Memory of `trace`, or of that of its scripts, on `machine`, under PyTorch's allocators with `settings`.

    What `memo` remembers is not replayed again.

    `pace` is that of the step on this machine: without it, what several streams use is held for a whole queue of launches.
    """
    scripts = trace if isinstance(trace, Scripts) else Scripts(trace)
    return Memory(gpu_memory(scripts, machine, settings, memo, pace), host_memory(scripts.trace, machine, settings))
