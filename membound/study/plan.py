"""What to change when a Job does not fit: changes are tried from the least to the most costly, each really predicted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from membound.errors import InputError, MemboundError
from membound.replay.result import Memory
from membound.run.schema import Run
from membound.spec import fields
from membound.spec.job import Job, Recipe
from membound.study.predicting import Prediction

MOST: Final = 8
"""Captures that a search may cost."""

Changes = dict[str, object]
# Categories that stay from step to step, whatever the micro-batch.
_LASTING: Final = ("weights", "gradients", "optimizer")


@dataclass(frozen=True)
class Attempt:
    """A changed Job and what it came to."""

    what: str
    """The change in words."""
    changes: Changes
    """All that differs from the Job as asked, by dotted field."""
    prediction: Prediction | None
    """None: the change was impossible, for the reason `why`."""
    why: str | None = None

    @property
    def fits(self) -> bool:
        """Whether it fits both GPU and host."""
        return self.prediction is not None and self.prediction.run.fits.gpu and self.prediction.run.fits.host

    def options(self) -> list[str]:
        """The changes as the command line takes them: --set KEY=VALUE."""
        return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in self.changes.items()]

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        run = self.prediction.run if self.prediction else None
        told = {"change": " ".join(self.options()), "what": self.what, "fits": self.fits, "why": run.fits.why if run else self.why}
        return told if run is None else {**told, "used": run.number("gpu.memory.used.peak"), "host_used": run.number("host.memory.used.peak")}


@dataclass(frozen=True)
class Advice:
    """All attempts in order; the last one fits, if any does."""

    attempts: tuple[Attempt, ...]

    @property
    def cure(self) -> Attempt | None:
        """The change that makes the Job fit, None if none was found."""
        return next((attempt for attempt in self.attempts if attempt.fits), None)


def advise(job: Job, first: Prediction, predict: Callable[[Job], Prediction], heard: Callable[[str], None] = lambda what: None) -> Advice:
    """Look for the least costly change of `job`, which came to `first`, that fits. `heard` is told of each attempt as it begins.

    Changes add up; one that overfills the host is taken back. At most `MOST` predictions.
    """
    attempts: list[Attempt] = []
    tried: set[str] = set()
    current, last = job, first
    while len(attempts) < MOST:
        step = next((each for each in _steps(current, last.memory) if each[0] not in tried), None)
        if step is None:
            break
        tried.add(step[0])
        changed = _changed(current, step[1])
        if changed is None:
            continue
        heard(step[0])
        attempts.append(attempt := _try(step[0], job, changed, predict))
        if attempt.fits:
            break
        if attempt.prediction is not None and attempt.prediction.run.fits.host:
            current, last = changed, attempt.prediction
    return Advice(tuple(attempts))


def with_cures(run: Run, advice: Advice) -> Run:
    """`run`, which also says what was tried to make it fit."""
    return dataclasses.replace(run, about={**run.about, "cures": [attempt.document() for attempt in advice.attempts]})


def _changed(job: Job, changes: Changes) -> Job | None:
    try:
        return fields.with_values(job, changes)
    except InputError:  # the Job's other fields rule it out
        return None


def _try(what: str, asked: Job, changed: Job, predict: Callable[[Job], Prediction]) -> Attempt:
    changes = _difference(asked, changed)
    try:
        return Attempt(what, changes, predict(changed))
    # The model or this computer's packages rule it out. The answer to what was asked stands all the same.
    except MemboundError as error:
        return Attempt(what, changes, None, str(error))


def _steps(job: Job, memory: Memory) -> Iterator[tuple[str, Changes]]:
    """Changes that may help, least costly first. Those that shrink activations are left out where what lasts overfills the GPU already."""
    lasting = sum(memory.gpu.at_peak.get(category, 0) for category in _LASTING)
    if lasting < memory.gpu.capacity and not memory.gpu.fits:
        yield from _smaller_activations(job, memory, lasting)
    if not memory.gpu.fits:
        yield from _more_sharding(job)
        yield from _offload(job)
    yield from _fewer_trained(job)


def _smaller_activations(job: Job, memory: Memory, lasting: int) -> Iterator[tuple[str, Changes]]:
    rows = job.recipe.micro_batch
    if rows > 1:
        fewer = _rows_that_may_fit(rows, memory, lasting)
        words = f"micro-batch {rows} to {fewer}, accumulation times {rows // fewer}"
        yield words, {"recipe.micro_batch": fewer, "recipe.accumulation": job.recipe.accumulation * (rows // fewer)}
    if job.recipe.recompute == "none":
        yield "selective recomputation of activations", {"recipe.recompute": "selective"}
    if job.recipe.recompute != "full":
        yield "full recomputation of activations", {"recipe.recompute": "full"}


def _rows_that_may_fit(rows: int, memory: Memory, lasting: int) -> int:
    # All that does not last grows with the rows, to first order; the prediction then tells.
    overhead = memory.gpu.context + memory.gpu.libraries
    per_row = max(memory.gpu.used_peak - overhead - lasting, 1) / rows
    room = max(memory.gpu.capacity - overhead - lasting, 0) / per_row
    divisors = [n for n in range(1, rows) if rows % n == 0]
    return max((n for n in divisors if n <= room), default=1)


def _more_sharding(job: Job) -> Iterator[tuple[str, Changes]]:
    recipe = job.recipe
    if job.gpus == 1:
        return
    if recipe.engine == "deepspeed" and recipe.zero_stage is not None:
        for stage in range(recipe.zero_stage + 1, 4):
            yield f"ZeRO stage {stage}", {"recipe.zero_stage": stage}
    if recipe.engine == "ddp" or (recipe.engine == "fsdp" and recipe.fsdp != "full-shard"):
        yield "FSDP, fully sharded", {"recipe.engine": "fsdp", "recipe.fsdp": "full-shard"}


def _offload(job: Job) -> Iterator[tuple[str, Changes]]:
    recipe = job.recipe
    if recipe.deepspeed_config is not None:
        return
    if recipe.engine == "fsdp":
        if recipe.offload.params == "none":
            yield "FSDP's offload to the host", {"recipe.offload": {"optimizer": "cpu", "params": "cpu"}}
        return
    stage = recipe.zero_stage or 2
    if recipe.offload.optimizer == "none":
        yield "optimizer offloaded to the host", {"recipe.engine": "deepspeed", "recipe.zero_stage": stage, "recipe.offload.optimizer": "cpu"}
    if recipe.offload.params == "none" and recipe.method != "qlora":
        both = {"optimizer": "cpu", "params": "cpu"}
        yield "optimizer and parameters offloaded to the host", {"recipe.engine": "deepspeed", "recipe.zero_stage": 3, "recipe.offload": both}


def _fewer_trained(job: Job) -> Iterator[tuple[str, Changes]]:
    adapters: Changes = {"recipe.lora.targets": "all-linear"}
    if job.recipe.method == "full":
        yield "LoRA", {"recipe.method": "lora", **adapters}
    if job.recipe.method != "qlora":
        place: Changes = {"recipe.offload.params": "none"} if job.recipe.engine == "deepspeed" else {}
        yield "QLoRA", {"recipe.method": "qlora", **(adapters if job.recipe.method == "full" else {}), **place}


def _difference(asked: Job, changed: Job) -> Changes:
    before, after = _flat(asked.model_dump(mode="json")), _flat(changed.model_dump(mode="json"))
    defaults = _flat(Job(model=changed.model, data=changed.data, recipe=Recipe(method=changed.recipe.method)).model_dump(mode="json"))
    return {key: value for key, value in after.items() if value != before.get(key, defaults.get(key))}


def _flat(data: dict[str, Any], path: str = "") -> Changes:
    flat: Changes = {}
    for key, value in data.items():
        flat.update(_flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value})
    return flat
