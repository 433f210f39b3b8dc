"""Sources that print memory and speed of the same runs: the Job is the one that their memory is compared with."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from membound.study.validation.memory.outcome import Comparable, Outcome
from membound.study.validation.memory.sources import fms, guides, qwen
from membound.study.validation.outcome import GB, LeftOut, job, known_machine
from membound.study.validation.rows import Row
from membound.study.validation.speed.outcome import STEP, TOKENS, SpeedOutcome, Timed
from membound.study.validation.speed.rows import rounding

_FMS: Final = "tokens/s of one GPU: the Trainer's train_tokens_per_second over 100 steps, the first included"
_QWEN: Final = "s for one optimizer step of 8 micro-batches, as the progress bar shows it"
_TORCHTUNE: Final = "tokens/s of one GPU: labels that count for the loss, in packed rows all but a few, over the time of the step"
_DERIVED: Final = ("derived from another row", "tokens per second, worked out from the printed step time; that row is compared")


def fms_acceleration(row: Row) -> SpeedOutcome:
    """foundation-model-stack/fms-acceleration: tokens per second and GPU of each run."""
    return _timed(fms.outcome(_twin(row, "peak_mem_allocated")), row, TOKENS, _FMS)


def qwen_readme(row: Row) -> SpeedOutcome:
    """QwenLM/Qwen's README: seconds per iteration."""
    if row.metric != "step_time":
        return LeftOut(row, *_DERIVED)
    return _timed(qwen.outcome(_twin(row, "peak_mem")), row, STEP, _QWEN, rounding(row.value))


def torchtune_ladder(row: Row) -> SpeedOutcome:
    """torchtune's README, "Optimization flags": each row one more flag than the last."""
    step = row.attention.partition("cumulative step ")[2][:1]
    if step == "0":
        return LeftOut(row, "tokens counted otherwise", "unpacked rows: its recipes count labels, some versions all tokens, and which is not stated")
    if step in {"1", "2"}:
        return _timed(guides.torchtune(_twin(row, "peak_mem_active")), row, TOKENS, _TORCHTUNE)
    if step == "3":
        return _chunked(row)
    if step == "4":
        return LeftOut(row, "kernels not modelled", "recomputation compiled into the layers")
    return LeftOut(row, "kernels not modelled", "optimizer within backward and offloaded activations, and the flags that come after them")


def _chunked(row: Row) -> Timed:
    assert row.seq_len is not None
    recipe = {"precision": "bf16", "micro_batch": row.micro_batch, "max_grad_norm": 0, "kernels": "compile"}
    settings = ("cross-entropy in chunks there, whole here", "packed rows carry a block-diagonal mask there and none here")
    asked = job("llama-3.2-3b", row.seq_len, 1, recipe)
    return Timed(row, asked, known_machine(row.gpu, 1), "torchtune", TOKENS, row.value, _TORCHTUNE, settings=settings)


def _twin(row: Row, metric: str) -> Row:
    # The same run's reading of memory, as the memory study knows it; its value is of no account here.
    return dataclasses.replace(row, metric=metric, value=GB)


def _timed(found: Outcome, row: Row, quantity: str, unit: str, rounded: float = 0.0) -> SpeedOutcome:
    if isinstance(found, LeftOut):
        return LeftOut(row, found.reason, found.detail)
    assert isinstance(found, Comparable)
    same: dict[str, Any] = {name: getattr(found, name) for name in ("job", "machine", "group", "settings", "options", "machine_changes")}
    return Timed(row, quantity=quantity, published=row.value, unit=unit, rounding=rounded, **same)
