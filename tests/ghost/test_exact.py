"""The ghost against reality: the same Program run for real on the CPU, operator by operator and byte by byte (docs/exactness.md)."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from membound.ghost.allowed import ALLOWED, DDP_ALLOWED
from membound.ghost.capture import capture
from membound.spec.job import Job
from membound.trace import store
from membound.trace.categories import lifetimes
from membound.trace.compare import compare
from membound.trace.schema import CATEGORY, Trace
from tests.prepared import Prepared

_PATIENCE: Final = 300.0
"""After so many seconds a real run counts as hung."""

LLAMA: Final = {
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "max_position_embeddings": 64,
}
# Without dropout in attention, which the CPU's fused kernel has not.
GPT2: Final = {"model_type": "gpt2", "vocab_size": 128, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4, "attn_pdrop": 0.0}
FIXED: Final = {"seq_len": 32}
PADDED: Final = {"lengths": "alpaca", "max_length": 32}

ONE = {"attention", "host copies", "host reads"}
SHARDED = ONE | {"collective wrapper", "inputs to device", "sharded addresses"}
UNFUSED = {"host copies", "host reads"}

# Name: model, data, recipe, and the names of the differences that show.
CASES: Final[dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], set[str]]]] = {
    "full, bf16": (LLAMA, FIXED, {"precision": "bf16"}, ONE),
    "full, bf16-mixed": (LLAMA, FIXED, {}, ONE),
    "full, fp32": (LLAMA, FIXED, {"precision": "fp32"}, UNFUSED),
    "full, fp16-mixed": (LLAMA, FIXED, {"precision": "fp16-mixed"}, ONE),
    "gpt2, bf16-mixed": (GPT2, FIXED, {"micro_batch": 2}, ONE),
    "gpt2, bf16": (GPT2, FIXED, {"precision": "bf16"}, ONE | {"layer norm statistics"}),
    "gpt2, padded": (GPT2, PADDED, {"micro_batch": 2}, ONE | {"attention mask"}),
    "llama, padded": (LLAMA, PADDED, {"micro_batch": 2, "precision": "bf16"}, ONE | {"attention mask"}),
    "lora with dropout": (LLAMA, FIXED, {"method": "lora", "lora": {"dropout": 0.1}}, ONE),
    "qlora": (LLAMA, FIXED, {"method": "qlora"}, ONE),
    "recompute full": (LLAMA, FIXED, {"recompute": "full"}, ONE),
    "recompute selective": (LLAMA, FIXED, {"recompute": "selective"}, ONE),
    "accumulation": (LLAMA, FIXED, {"accumulation": 3}, ONE),
    "sgd": (LLAMA, FIXED, {"optimizer": "sgd"}, ONE),
    "adamw-fused": (LLAMA, FIXED, {"optimizer": "adamw-fused", "max_grad_norm": 0}, ONE),
    "adafactor": (LLAMA, FIXED, {"optimizer": "adafactor", "precision": "bf16"}, ONE),
    "ddp": (LLAMA, FIXED, {"engine": "ddp", "accumulation": 2}, ONE | {choice.name for choice in DDP_ALLOWED}),
    "fsdp": (LLAMA, FIXED, {"engine": "fsdp"}, SHARDED),
    "fsdp, lora": (LLAMA, FIXED, {"engine": "fsdp", "method": "lora"}, SHARDED),
    "fsdp, qlora": (LLAMA, FIXED, {"engine": "fsdp", "method": "qlora"}, SHARDED),
    "fsdp, fp16-mixed": (LLAMA, FIXED, {"engine": "fsdp", "precision": "fp16-mixed"}, SHARDED),
    "fsdp, grad-op": (LLAMA, FIXED, {"engine": "fsdp", "fsdp": "grad-op", "recompute": "full", "accumulation": 2}, SHARDED),
    "fsdp, hybrid": (LLAMA, FIXED, {"engine": "fsdp", "fsdp": "hybrid"}, SHARDED),
    "zero-1": (LLAMA, FIXED, {"engine": "deepspeed", "zero_stage": 1}, ONE),
    "zero-2": (LLAMA, FIXED, {"engine": "deepspeed", "zero_stage": 2, "accumulation": 2}, ONE),
    "zero-3": (LLAMA, FIXED, {"engine": "deepspeed", "zero_stage": 3}, ONE | {"order check"}),
}
# Bytes that a case may be apart, all accounted for, where it is more than 24 of each attention layer.
APART: Final = {"gpt2, bf16": 816, "fsdp": 84, "fsdp, lora": 64, "fsdp, qlora": 64, "fsdp, grad-op": 84, "fsdp, hybrid": 84, "fsdp, fp16-mixed": 84}

ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
PREPARATION: Final = """
from contextlib import suppress
import membound.ghost.witness, membound.programs.causal_lm
for name in ("peft", "bitsandbytes"):
    with suppress(ImportError):
        __import__(name)
"""
NODE: Final = 2
"""Ranks on a node."""
NUMBERS: Final = 256
"""Bytes of single numbers and names of random states that a real run may hold beside its model."""


def job(name: str) -> Job:
    """The Job of a case; sharded ones on two ranks, or on two nodes of two."""
    _, data, recipe, _ = CASES[name]
    gpus = 1 if "engine" not in recipe else 4 if recipe.get("fsdp") == "hybrid" else 2
    return Job.model_validate({"model": "two-layers", "data": data, "recipe": recipe, "gpus": gpus})


class Witnesses:
    """Processes that train for real on the CPU, one for each rank; two ranks to a node."""

    def __init__(self, ranks: int, folder: Path, prepared: Prepared) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {**os.environ, **ENVIRONMENT, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(min(ranks, NODE))}
        self._folder = folder
        self._processes = [Witness(prepared, {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank % NODE)}, folder) for rank in range(ranks)]

    def witness(self, name: str) -> Trace:
        """The Trace of rank 0's real run of a case."""
        folders = [self._folder / f"{name}, rank {rank}" for rank in range(len(self._processes))]
        for process, folder in zip(self._processes, folders, strict=True):
            process.ask({"job": job(name).model_dump(mode="json"), "config": CASES[name][0], "folder": str(folder)})
        assert [process.answer() for process in self._processes] == ["done"] * len(folders)
        return store.read(folders[0])

    def end(self) -> None:
        """Let go of the processes."""
        for process in self._processes:
            process.end()


class Witness:
    """One of these processes."""

    def __init__(self, prepared: Prepared, environment: dict[str, str], folder: Path) -> None:
        (asked, self._asking), (self._told, telling) = os.pipe(), os.pipe()
        with (folder / f"errors-{environment['RANK']}.txt").open("wb") as errors:
            self._child = prepared.start("from membound.ghost.witness import main; main()", (), (asked, telling, errors), environment)
        os.close(asked)
        os.close(telling)
        self._answers = os.fdopen(self._told, "rb")

    def ask(self, request: dict[str, Any]) -> None:
        os.write(self._asking, json.dumps(request).encode() + b"\n")

    def answer(self) -> str:
        readable, _, _ = select.select([self._told], [], [], _PATIENCE)
        line = self._answers.readline() if readable else b'"no answer"'
        return str(json.loads(line or b'"died"'))

    def end(self) -> None:
        os.kill(self._child.pid, signal.SIGKILL)
        self._child.wait()
        os.close(self._asking)
        self._answers.close()


@pytest.fixture(scope="module")
def prepared() -> Iterator[Prepared]:
    """A process that has imported what real runs need; it has trained nothing."""
    found = Prepared(PREPARATION, {**os.environ, **ENVIRONMENT})
    yield found
    found.close()


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Iterator[Callable[[str], Trace]]:
    """Real runs by name. ZeRO-3 has processes of its own: it replaces parts of PyTorch for good."""
    running: dict[str, Witnesses] = {}

    def of(name: str) -> Trace:
        asked = job(name)
        group = "zero-3" if asked.recipe.zero_stage == 3 else f"ranks-{asked.gpus}"
        if group not in running:
            running[group] = Witnesses(asked.gpus, tmp_path_factory.mktemp(group), prepared)
        return running[group].witness(name)

    yield of
    for processes in running.values():
        processes.end()


@pytest.mark.parametrize("name", CASES)
def test_the_ghost_does_what_the_real_run_does(name: str, witness: Callable[[str], Trace]) -> None:
    config, _, recipe, expected = CASES[name]
    for package, needed in (("deepspeed", "zero_stage" in recipe), ("peft", "method" in recipe), ("bitsandbytes", recipe.get("method") == "qlora")):
        if needed and find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    real, ghost = witness(name), capture(job(name), config, NODE)
    found = compare(real, ghost, ALLOWED + (DDP_ALLOWED if name == "ddp" else ()))
    assert not found.unexplained, "\n".join(map(str, found.unexplained[:40]))
    assert found.choices == expected
    assert found.drift <= APART.get(name, 48)
    assert found.aligned > 500
    assert (ghost.header.parameters, ghost.header.trained) == (real.header.parameters, real.header.trained)
    (real_weights, real_rest), (ghost_weights, ghost_rest) = standing(real), standing(ghost)
    assert ghost_weights == real_weights > 0
    assert abs(ghost_rest - real_rest) <= NUMBERS


def standing(trace: Trace) -> tuple[int, int]:
    """Bytes of weights, and of all else, that are alive when training begins."""
    begin = int(np.argmax(trace.instructions["step"] >= 0))
    births, deaths = lifetimes(trace)
    alive = (births >= 0) & (births < begin) & (deaths >= begin)
    weights = trace.storages["category"] == CATEGORY["weights"]
    nbytes = trace.storages["nbytes"]
    return int(nbytes[alive & weights].sum()), int(nbytes[alive & ~weights].sum())


def test_the_documentation_lists_every_choice() -> None:
    text = (Path(__file__).parents[2] / "docs" / "exactness.md").read_text()
    for choice in (*ALLOWED, *DDP_ALLOWED):
        assert f"| {choice.name} | {choice.reason} |" in text
    assert set().union(*(labels for *_, labels in CASES.values())) == {choice.name for choice in (*ALLOWED, *DDP_ALLOWED)}
