"""From a Job and a Machine to a Run: captured (or recalled), replayed, and put into the Run's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from membound import __version__
from membound.cost.dispatch import Attention
from membound.ghost import row_lengths
from membound.ghost.capture import Limits, Progress, capture, unheard
from membound.ghost.processes import Start, fresh
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.lengths import of as of_job
from membound.replay.memory import replay
from membound.replay.predict_memory import memory_fits, memory_tables, memory_values
from membound.replay.predict_time import Timing, time_values, unknown_share
from membound.replay.result import Memory
from membound.replay.step import Played
from membound.replay.time import Replayer, pace
from membound.replay.time_tables import time_tables
from membound.replay.walked import Forgetful, Memo
from membound.run.quantities import QUANTITIES
from membound.run.schema import Missing, Run, Value
from membound.spec import catalogue, jobfile
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.trace import cache
from membound.trace.array_cache import ArrayCache
from membound.trace.schema import Trace


@dataclass(frozen=True)
class Prediction:
    """A predicted Run, with what it was made from."""

    run: Run
    memory: Memory
    trace: Trace
    timing: Timing


def predict(
    job: Job,
    machine: Machine | str | None = None,
    settings: AllocatorSettings | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """What `job` would do to `machine`: a Machine, a catalogue name, or None for the Job's own.

    `settings` are those of PyTorch's allocator. Raises `InputError` for what cannot be asked, `CaptureError` where the training program
    fails, `MissingPackageError` where the Job needs a package that is not installed.
    """
    if isinstance(machine, str):
        job, machine = job.model_copy(update={"machine": machine}), None
    asked = jobfile.ask(job)
    used = asked.machine if machine is None else machine.with_gpus(job.gpus)
    return Predictor(settings or AllocatorSettings(), progress or unheard).predict(asked.job, used).run


@dataclass(frozen=True)
class Predictor:
    """How to predict: the allocator's settings, who hears of progress, what a capture may take, whether Traces are kept, and who starts captures."""

    settings: AllocatorSettings = field(default_factory=AllocatorSettings)
    progress: Callable[[Progress], None] = unheard
    limits: Limits = field(default_factory=Limits)
    cached: bool = True
    start: Start = fresh

    def predict(self, job: Job, machine: Machine, options: Mapping[str, Any] | None = None) -> Prediction:
        """The prediction for `job` on `machine`, which is already the part of it that the Job uses.

        `options` ask for code of another time than the installed one's (`membound.programs.losses`); `"attention": "flash-2"` or `"flash-1"` for
        attention of another time (`membound.cost.dispatch`).
        """
        return self.priced(self.replayer(job, machine.gpus, options), job, machine)

    def priced(self, replayer: Replayer, job: Job, machine: Machine, played: Played | None = None) -> Prediction:
        """The prediction for `job`, which `replayer` holds, on `machine`; `played` where its step has been played there already."""
        trace = replayer.trace
        played = played or replayer.on(machine)
        memory = replay(replayer.scripts, machine, self.settings, self._memo, pace(played, trace))
        timing = Timing.of(played, machine)
        return Prediction(_run(job, machine, trace, memory, timing), memory, trace, timing)

    def replayer(self, job: Job, ranks_per_node: int, options: Mapping[str, Any] | None = None) -> Replayer:
        """`job`, captured and ready to be priced on any machine with as many GPUs to a node."""
        rows = row_lengths.of(job)
        lengths = of_job(job, rows)
        asked = dict(options or {})
        attention: Attention = asked.pop("attention", "cudnn")  # A Trace is the same whichever it is.
        shorter = lengths.second_capture()
        if shorter is None:
            return Replayer(self.trace(job, ranks_per_node, asked), lengths, memo=self._memo, attention=attention)
        # Both captures are processes of their own: side by side they take hardly longer than one.
        near = job.model_copy(update={"data": job.data.model_copy(update={"max_length": shorter})})
        quiet = dataclasses.replace(self, progress=unheard)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(quiet.trace, near, ranks_per_node, asked)
            trace = self.trace(job, ranks_per_node, asked)
            return Replayer(trace, lengths, other.result(), self._memo, attention)

    @property
    def _memo(self) -> Memo:
        return ArrayCache(cache.default_folder()) if self.cached else Forgetful()

    def trace(self, job: Job, ranks_per_node: int, options: Mapping[str, Any] | None = None) -> Trace:
        """The Trace of `job`: a kept one, or a new capture, which is then kept."""
        config = catalogue.model_entry(job.model, job.allow_code).config
        if options:
            config = {**config, "membound": dict(options)}
        if not self.cached:
            return capture(job, config, ranks_per_node, self.limits, self.progress, self.start)
        kept = cache.TraceCache(cache.default_folder())
        key = cache.key(job, config, ranks_per_node)
        trace = kept.get(key, job)
        if trace is None:
            trace = capture(job, config, ranks_per_node, self.limits, self.progress, self.start)
            kept.put(key, trace)
        return trace


def _run(job: Job, machine: Machine, trace: Trace, memory: Memory, timing: Timing) -> Run:
    known = {**memory_values(memory, trace, machine), **time_values(timing)}
    values: dict[str, Value | Missing] = {name: known.get(name, Missing("measured only")) for name in QUANTITIES}
    about: dict[str, Any] = {
        "membound": __version__,
        "versions": dict(trace.header.versions),
        "notes": [*trace.header.notes, *_of_lengths(timing)],
        "moment": dataclasses.asdict(memory.gpu.moment),
        "sensitivity": {name: share for name, share in timing.played.sensitivity.items() if share > 0},
        "unknown_operators_share": unknown_share(timing.played),
        "host_by_category": dict(memory.host.by_category),
    }
    if trace.extra:  # captured just now, not recalled
        about["capture"] = dict(trace.extra)
    documents = job.model_dump(mode="json"), machine.model_dump(mode="json")
    tables = {name: _plain(table) for name, table in memory_tables(memory, trace).items()}
    tables |= time_tables(timing, memory.gpu.used_peak, memory.gpu.reserved_peak, memory.host.used_peak)
    return Run("predicted", *documents, memory_fits(memory), values, tables, about)


def _of_lengths(timing: Timing) -> list[str]:
    """What a reader has to know of how row lengths were priced."""
    captured = set(timing.played.work.program.lengths)
    if timing.played.lengths.fixed or len(captured) > 1:
        return []
    return [f"rows of two lengths do not run the same operators: time is that of micro-batches of {captured.pop()} tokens, the usual ones"]


def _plain(table: pa.Table) -> pa.Table:
    # A Run's tables are in SI units throughout; reports and exports add the unit to the head when they write one.
    return table.rename_columns([name.removesuffix("_B") for name in table.column_names])
