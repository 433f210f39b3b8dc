"""From a Job and a Machine to a Run: captured (or recalled), replayed, and put into the Run's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from membound import __version__
from membound.ghost.capture import Limits, Progress, capture, unheard
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.memory import replay
from membound.replay.predict_memory import memory_fits, memory_tables, memory_values
from membound.replay.result import Memory
from membound.run.quantities import QUANTITIES
from membound.run.schema import Missing, Run, Value
from membound.spec import catalogue, jobfile
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.trace import cache
from membound.trace.schema import Trace

UNPRICED: Final = "not priced yet: only memory is predicted by this version"


@dataclass(frozen=True)
class Prediction:
    """A predicted Run, with what it was made from."""

    run: Run
    memory: Memory
    trace: Trace


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
    """How to predict: the allocator's settings, who hears of progress, what a capture may take, and where Traces are kept."""

    settings: AllocatorSettings = field(default_factory=AllocatorSettings)
    progress: Callable[[Progress], None] = unheard
    limits: Limits = field(default_factory=Limits)
    cached: bool = True

    def predict(self, job: Job, machine: Machine, options: Mapping[str, Any] | None = None) -> Prediction:
        """The prediction for `job` on `machine`, which is already the part of it that the Job uses.

        `options` ask for code of another time than the installed one's (`membound.programs.losses`).
        """
        trace = self.trace(job, machine.gpus, options)
        memory = replay(trace, machine, self.settings)
        return Prediction(_run(job, machine, trace, memory), memory, trace)

    def trace(self, job: Job, ranks_per_node: int, options: Mapping[str, Any] | None = None) -> Trace:
        """The Trace of `job`: a kept one, or a new capture, which is then kept."""
        config = catalogue.model_entry(job.model, job.allow_code).config
        if options:
            config = {**config, "membound": dict(options)}
        if not self.cached:
            return capture(job, config, ranks_per_node, self.limits, self.progress)
        kept = cache.TraceCache(cache.default_folder())
        key = cache.key(job, config, ranks_per_node)
        trace = kept.get(key, job)
        if trace is None:
            trace = capture(job, config, ranks_per_node, self.limits, self.progress)
            kept.put(key, trace)
        return trace


def _run(job: Job, machine: Machine, trace: Trace, memory: Memory) -> Run:
    known = memory_values(memory, trace, machine)
    values: dict[str, Value | Missing] = {name: known.get(name, Missing(UNPRICED)) for name in QUANTITIES}
    about: dict[str, Any] = {
        "membound": __version__,
        "versions": dict(trace.header.versions),
        "notes": list(trace.header.notes),
        "moment": dataclasses.asdict(memory.gpu.moment),
        "host_by_category": dict(memory.host.by_category),
    }
    if trace.extra:  # captured just now, not recalled
        about["capture"] = dict(trace.extra)
    documents = job.model_dump(mode="json"), machine.model_dump(mode="json")
    tables = {name: _plain(table) for name, table in memory_tables(memory, trace).items()}
    return Run("predicted", *documents, memory_fits(memory), values, tables, about)


def _plain(table: pa.Table) -> pa.Table:
    # A Run's tables are in SI units throughout; reports and exports add the unit to the head when they write one.
    return table.rename_columns([name.removesuffix("_B") for name in table.column_names])
