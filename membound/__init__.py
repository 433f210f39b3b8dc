"""membound shows what memory does to a fine-tune: on the GPU you have, and on one you don't.

    job = membound.Job(model="llama-7b", data={"seq_len": 512}, recipe={"method": "lora"})
    run = membound.predict(job, "rtx-4090-x2")
    run.fits, run.number("gpu.memory.reserved.peak")

Names are loaded when they are first used: importing this package takes no time and no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from membound.run.schema import Run
    from membound.run.store import read as load
    from membound.spec.job import Job
    from membound.spec.machine import Machine
    from membound.study.predicting import predict

__version__ = "0.1.0"

__all__ = ["Job", "Machine", "Run", "__version__", "load", "predict"]

_HOMES = {
    "Job": ("membound.spec.job", "Job"),
    "Machine": ("membound.spec.machine", "Machine"),
    "Run": ("membound.run.schema", "Run"),
    "load": ("membound.run.store", "read"),
    "predict": ("membound.study.predicting", "predict"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _HOMES[name]
    value = globals()[name] = getattr(importlib.import_module(module), own)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
