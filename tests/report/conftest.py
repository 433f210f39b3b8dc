"""A small Trace and the Run that goes with it, made by hand: two steps of a two-layer model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from membound.run.schema import Fits, Missing, Run, Value
from membound.trace.schema import CATEGORIES, CATEGORY, INSTRUCTIONS, KIND, OPERANDS, PHASE, PHASES, PLACE, STORAGES, Header, Trace

GIB = 2**30


class Recorder:
    """Writes a Trace by hand."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.storages: list[dict[str, Any]] = []
        self.now: dict[str, Any] = {"phase": PHASE["load"], "step": -1, "micro": -1}
        self.tables: dict[str, list[str]] = {"op": [""], "module": [""], "line": [""]}

    def phase(self, phase: str, step: int = -1, micro: int = -1) -> None:
        """What follows belongs to this phase."""
        self.now = {"phase": PHASE[phase], "step": step, "micro": micro}

    def do(self, kind: str, op: str = "", module: str = "", line: str = "", **columns: Any) -> None:
        """One instruction."""
        codes = {name: self.code(name, word) for name, word in (("op", op), ("module", module), ("line", line))}
        blank = dict.fromkeys(INSTRUCTIONS, 0) | {"target": -1}
        self.rows.append(blank | self.now | codes | {"kind": KIND[kind]} | columns)

    def alloc(self, nbytes: int, category: str, module: str = "", line: str = "", place: str = "gpu", stream: int = 0) -> int:
        """A new storage; its number."""
        codes = {"module": self.code("module", module), "line": self.code("line", line), "op": self.code("op", "aten.mm.default")}
        self.storages.append({"place": PLACE[place], "nbytes": nbytes, "category": CATEGORY[category], **codes})
        self.do("alloc", "", module, line, target=len(self.storages) - 1, nbytes=nbytes, stream=stream)
        return len(self.storages) - 1

    def free(self, storage: int) -> None:
        """The end of a storage."""
        self.do("free", target=storage, nbytes=self.storages[storage]["nbytes"])

    def code(self, table: str, word: str) -> int:
        """The code of `word` in a string table."""
        words = self.tables[table]
        if word not in words:
            words.append(word)
        return words.index(word)

    def trace(self) -> Trace:
        """What was written."""
        header = Header(
            job={"model": "llama-7b"}, versions={"torch": "2.13"}, rank=0, ranks=2, ranks_per_node=2, steps=2, micro_steps=1, repeat=1, parameters=1,
            trained=1, ops=tuple(self.tables["op"]), modules=tuple(self.tables["module"]), lines=tuple(self.tables["line"]), shapes=("",),
        )  # fmt: skip
        columns = {name: np.array([row[name] for row in self.rows], dtype=dtype) for name, dtype in INSTRUCTIONS.items()}
        storages = {name: np.array([row[name] for row in self.storages], dtype=dtype) for name, dtype in STORAGES.items()}
        return Trace(header, columns, {name: np.empty(0, dtype=dtype) for name, dtype in OPERANDS.items()}, storages)


def record() -> Trace:
    """Two steps: weights stay, activations come and go, the optimizer's states arrive in the first step."""
    recorder, line = Recorder(), "transformers/models/llama/modeling_llama.py:174"
    layers = [f"model.layers.{layer}.mlp.{name}" for layer in range(2) for name in ("up_proj", "down_proj")]
    for layer in layers:
        recorder.alloc(GIB, "weights", layer)
        recorder.do("copy_h2d", "aten._to_copy.default", layer, nbytes=GIB)
    host = recorder.alloc(GIB, "optimizer", place="host")
    for step in range(2):
        recorder.phase("data", step, 0)
        recorder.do("view", "aten.detach.default")
        recorder.phase("forward", step, 0)
        kept = []
        for layer in layers:
            kept.append(recorder.alloc(300_000_001, "activations", layer, line))
            recorder.do("kernel", "aten.mm.default", layer, line, flops=2e9)
        recorder.do("record", target=step)
        recorder.do("wait", target=step, stream=1)
        recorder.do("collective", "c10d.allreduce_", "", nbytes=GIB, stream=1, ranks=2)
        recorder.phase("backward", step, 0)
        for layer, storage in zip(reversed(layers), reversed(kept), strict=True):
            recorder.do("kernel", "aten.mm.default", layer, line, flops=4e9)
            recorder.free(storage)
        recorder.phase("optimizer", step, 0)
        if step == 0:
            for layer in layers:
                recorder.alloc(2 * GIB, "optimizer", layer, "torch/optim/adam.py:178")
        scratch = recorder.alloc(700, "temporaries", "", "torch/optim/adam.py:790")
        recorder.do("kernel", "aten._foreach_sqrt.default", "", "torch/optim/adam.py:790")
        recorder.free(scratch)
    recorder.free(host)
    return recorder.trace()


def timeline(trace: Trace) -> pa.Table:
    """The memory.timeline table of a Trace, with reserved a little over what was ever allocated."""
    columns, storages = trace.instructions, trace.storages
    held, most = dict.fromkeys(CATEGORIES, 0), 0
    rows: list[dict[str, Any]] = []
    for row in trace.select("alloc", "free").tolist():
        storage = columns["target"][row]
        if storages["place"][storage] == PLACE["gpu"]:
            sign = 1 if columns["kind"][row] == KIND["alloc"] else -1
            held[CATEGORIES[storages["category"][storage]]] += sign * (-(-int(columns["nbytes"][row]) // 512) * 512)
            most = max(most, sum(held.values()))
            place = {
                "instruction": row,
                "phase": PHASES[columns["phase"][row]],
                "step": int(columns["step"][row]),
                "micro": int(columns["micro"][row]),
            }
            rows.append({**place, "allocated": sum(held.values()), "reserved": -(-most // 2**21) * 2**21, **held})
    return pa.table({name: [row[name] for row in rows] for name in rows[0]})


def exact(nbytes: float, spread: float = 0.0) -> Value:
    """A value with its band."""
    return Value(float(nbytes), "B", nbytes * (1 - spread), nbytes * (1 + spread), "caching allocator replayed")


def make_run(trace: Trace, **changes: Any) -> Run:
    """The Run of `trace` on a GPU of 16 GiB, which it fits."""
    values: dict[str, Value | Missing] = {
        "gpu.memory.allocated.peak": exact(12 * GIB, 0.02),
        "gpu.memory.reserved.peak": exact(12.5 * GIB),
        "gpu.memory.used.peak": exact(13 * GIB, 0.05),
        "gpu.memory.capacity": exact(16 * GIB),
        "gpu.memory.weights": exact(4 * GIB),
        "gpu.memory.optimizer": exact(8 * GIB),
        "gpu.memory.temporaries": exact(700),
        "gpu.memory.gradients": exact(0),
        "gpu.memory.context": exact(0.5 * GIB),
        "host.memory.used.peak": exact(31 * GIB),
        "host.memory.pinned.peak": Missing("the engine's pinned buffers were not captured"),
        "host.memory.capacity": exact(64 * GIB),
    }
    layers = [f"model.layers.{layer}.mlp.up_proj" for layer in range(32)]
    holdings = {
        "category": ["weights"] * 32 + ["optimizer"], "module": [*layers, ""], "line": [""] * 32 + ["torch/optim/adam.py:178"],
        "nbytes": [GIB // 8] * 32 + [8 * GIB], "blocks": [1] * 32 + [4],
    }  # fmt: skip
    moment = {
        "instruction": 30, "phase": "backward", "step": 0, "micro": 0, "module": "model.layers.31.mlp.down_proj",
        "line": "transformers/models/llama/modeling_llama.py:174", "op": "aten.mm.default",
    }  # fmt: skip
    recipe = {"method": "lora", "lora": {"rank": 16}, "precision": "bf16-mixed", "engine": "deepspeed", "zero_stage": 3, "micro_batch": 4}
    run = Run(
        origin="predicted",
        job={"model": "llama-7b", "data": {"seq_len": 512}, "recipe": recipe, "gpus": 8},
        machine={"name": "hgx-h100", "gpu": {"name": "h100-sxm"}},
        fits=Fits(gpu=True, host=True),
        values=values,
        tables={"memory.timeline": timeline(trace), "memory.holdings": pa.table(holdings)},
        about={"moment": moment, "notes": ["fused attention as CUDA would choose it"], "host_by_category": {"optimizer (pinned)": 8 * GIB}},
    )
    return replace(run, **changes)


@pytest.fixture(scope="session")
def trace() -> Trace:
    return record()


@pytest.fixture
def run(trace: Trace) -> Run:
    return make_run(trace)


@pytest.fixture
def run_with(trace: Trace) -> Callable[..., Run]:
    return lambda **changes: make_run(trace, **changes)
