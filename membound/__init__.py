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
    from membound import measure
    from membound.run.schema import Run
    from membound.spec.job import Job
    from membound.spec.machine import Machine
    from membound.study.measuring import load
    from membound.study.predicting import predict
    from membound.study.sweep.predicting import predicted as sweep

__version__ = "0.2.0"

__all__ = ["Job", "Machine", "Run", "__version__", "load", "measure", "predict", "sweep"]

_HOMES = {
    "Job": ("membound.spec.job", "Job"),
    "Machine": ("membound.spec.machine", "Machine"),
    "Run": ("membound.run.schema", "Run"),
    "load": ("membound.study.measuring", "load"),
    "measure": ("membound.measure", ""),  # the package is the verb
    "predict": ("membound.study.predicting", "predict"),
    "sweep": ("membound.study.sweep.predicting", "predicted"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _HOMES[name]
    home = importlib.import_module(module)
    value = globals()[name] = getattr(home, own) if own else home
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
