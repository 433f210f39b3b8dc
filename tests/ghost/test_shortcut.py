"""The shortcut changes how long a capture takes, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from membound.trace.store import read

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


def captured(how: str, recipe: str, folder: Path) -> Path:
    out = folder / how
    subprocess.run([sys.executable, "-c", SNIPPET, how, str(out), recipe], check=True, capture_output=True)
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
def test_same_trace_with_and_without(recipe: str, tmp_path: Path) -> None:
    with_, without = (read(captured(how, recipe, tmp_path)) for how in ("with", "without"))
    assert with_.header == without.header
    assert len(with_) > 1000
    for table in ("instructions", "operands", "storages"):
        ours, theirs = getattr(with_, table), getattr(without, table)
        for name in ours:
            assert np.array_equal(ours[name], theirs[name]), f"{table}.{name}"
