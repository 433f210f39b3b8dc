"""The shortcut changes how long a capture takes, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from membound.trace.store import read
from tests.prepared import Prepared

# As in a capture's own process nothing is collected: when that happens, which another process's compiled files decide, would show in what lives.
SNIPPET = """
import gc
import sys
gc.disable()
from pathlib import Path
import membound.ghost.handlers as handlers
import membound.ghost.run as run
from membound.spec.catalogue import model
from membound.spec.job import Job
from membound.trace.store import write
if sys.argv[1] == "without":
    run.Shortcut = lambda mode: None
    handlers._COLLECTIVES = ()
recipe = eval(sys.argv[3])
ranks = 4 if "engine" in recipe else 1
job = Job.model_validate({"model": "tiny", "data": {"seq_len": 24}, "recipe": {"recompute": "full", "micro_batch": 2, **recipe}, "gpus": ranks})
write(run.record(job, model("tiny").config, ranks), Path(sys.argv[2]))
"""


# What makes no tensors may be imported before: what does is part of a capture.
PREPARATION = """
from contextlib import suppress
import torch._inductor.compile_fx
import membound.ghost.handlers, membound.ghost.run, membound.programs.causal_lm, membound.trace.store
from membound.ghost.deepspeed_adapter import import_as_on_cuda
from membound.errors import MissingPackageError
with suppress(MissingPackageError):
    import_as_on_cuda()
"""


@pytest.fixture(scope="module")
def prepared() -> Iterator[Prepared]:
    found = Prepared(PREPARATION, os.environ)
    yield found
    found.close()


def captured(prepared: Prepared, how: str, recipe: str, folder: Path) -> Path:
    out = folder / how
    done = prepared.run(SNIPPET, how, str(out), recipe)
    assert done.returncode == 0, done.stderr
    return out


RECIPES = [
    {"method": "lora"},
    {"precision": "bf16-mixed"},
    {"method": "qlora", "engine": "ddp", "recompute": "none"},
    {"optimizer": "adamw-8bit", "precision": "bf16", "recompute": "none"},
    {"engine": "fsdp", "accumulation": 3},
    {"engine": "deepspeed", "zero_stage": 1, "accumulation": 2},
    {"engine": "deepspeed", "zero_stage": 3, "offload": {"optimizer": "cpu", "params": "cpu"}, "precision": "fp16-mixed"},
]


@pytest.mark.parametrize("recipe", [str(recipe) for recipe in RECIPES])
def test_same_trace_with_and_without(prepared: Prepared, recipe: str, tmp_path: Path) -> None:
    with_, without = (read(captured(prepared, how, recipe, tmp_path)) for how in ("with", "without"))
    assert with_.header == without.header
    assert len(with_) > 1000
    for table in ("instructions", "operands", "storages"):
        ours, theirs = getattr(with_, table), getattr(without, table)
        for name in ours:
            assert np.array_equal(ours[name], theirs[name]), f"{table}.{name}"
