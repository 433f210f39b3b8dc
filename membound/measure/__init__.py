"""Measuring: a Job, or any command, run for real on this machine under every sensor that it has.

`membound.measure(job)` runs a Job and returns its Run; `membound.measure.measure_command(command)` does the same around any command;
`membound.measure.marking(name)` marks a block of a script that is being watched. Nothing is loaded before it is used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from membound.measure.door import measure, measure_command
    from membound.measure.user_marks import marking
    from membound.run.schema import Run

__all__ = ["marking", "measure", "measure_command"]

_HOMES = {
    "marking": "membound.measure.user_marks",
    "measure": "membound.measure.door",
    "measure_command": "membound.measure.door",
}


class _Door(ModuleType):
    """`membound.measure` is both the package and the verb, as `membound.predict` is one."""

    def __call__(self, *args: Any, **kwargs: Any) -> Run:
        run: Run = importlib.import_module("membound.measure.door").measure(*args, **kwargs)
        return run

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


sys.modules[__name__].__class__ = _Door
