"""What a measurement is asked to do. Written into its folder before anything runs, read by its workers and by whoever puts it together."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from membound.errors import InputError, RecordError

Feed = Literal["rows", "planned"]
Weights = Literal["host", "gpu"]
Launcher = Literal["auto", "alone", "torchrun", "deepspeed"]

STEPS: Final = 20
WARM_UP: Final = 3
PERIOD: Final = 0.02


@dataclass(frozen=True)
class Nodes:
    """This node among several that run the same Job."""

    count: int = 1
    rank: int = 0
    rendezvous: str = ""
    """Host and port at which they meet, as `torchrun --rdzv-endpoint` reads it; empty for one node."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise InputError("--node-rank", self.rank, f"write 0 to {self.count - 1} for {self.count} nodes")
        if self.count > 1 and not self.rendezvous:
            raise InputError("--rendezvous", self.rendezvous, "several nodes need a place to meet: write HOST:PORT of the first")


@dataclass(frozen=True)
class Options:
    """How to measure a Job."""

    steps: int = STEPS
    """Optimizer steps, warm-up included."""
    warm_up: int = WARM_UP
    """Steps that no mean, median or rate counts."""
    period: float = PERIOD
    """Grid of the sampler, s."""
    feed: Feed = "rows"
    """`rows`: the data's own rows; `planned`: in each micro-batch the one that memory is planned for."""
    weights: Weights = "host"
    """Where random weights are made: on the host and moved, as a checkpoint is loaded, or on the GPU, which is quick but shows no loading."""
    launcher: Launcher = "auto"
    host_limit: float | None = None
    """Data that one process may hold on the host, B."""
    time_limit: float | None = None
    """The job is ended after this, s."""
    sampled: bool = True
    """Whether the sampler runs: without it the job is measured undisturbed, by its own marks alone."""
    hbm: str | None = None
    """Which sensor of HBM traffic to use; None: the best that disturbs nothing."""
    nodes: Nodes = field(default_factory=Nodes)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError("--steps", self.steps, "write 1 or more")
        if self.warm_up < 0:
            raise InputError("--warm-up", self.warm_up, "write 0 or more")
        if not 0.001 <= self.period <= 10:
            raise InputError("--period", self.period, "write 1 ms to 10 s")

    @property
    def counted_from(self) -> int:
        """The first step that counts: at least one does, however few there are."""
        return min(self.warm_up, self.steps - 1)


@dataclass(frozen=True)
class Plan:
    """One measurement: a Job, or a command that somebody else wrote."""

    job: Mapping[str, Any]
    """The Job's document; of a command: {"command": [...]}."""
    machine: Mapping[str, Any]
    config: Mapping[str, Any]
    """The Hugging Face configuration of the model; empty for a command."""
    device: Literal["cuda", "cpu"]
    options: Options
    process: Mapping[str, Any]
    """Who measures: pid and when that process began, to know whether it still runs."""
    epoch_ns: int
    """`time.monotonic_ns` when the measurement began, should there be no sampler to say."""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> list[str] | None:
        """The watched command, None for a Job."""
        words = self.job.get("command")
        return [str(word) for word in words] if isinstance(words, list) else None

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Plan:
        """The plan of `document`. Raises `RecordError`."""
        try:
            options = dict(document["options"])
            options["nodes"] = Nodes(**options["nodes"])
            return cls(**{**document, "options": Options(**options)})
        except (TypeError, KeyError) as error:
            raise RecordError(f"the plan of a measurement cannot be read: {error}") from None

    def alive(self) -> bool:
        """Whether the process that measures still runs."""
        pid, began = int(self.process["pid"]), self.process["began"]
        # Where there is no /proc, a number that is taken again in the meantime cannot be told.
        return psutil.pid_exists(pid) if began is None else _began(pid) == began


def this_process() -> dict[str, Any]:
    """This process, so that others can tell whether it still runs."""
    return {"pid": os.getpid(), "began": _began(os.getpid())}


def _began(pid: int) -> float | None:
    """When process `pid` began, in ticks since the system did: a clock that nobody sets. None where it no longer runs, or there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # proc(5): the name, in brackets, may hold anything; after it state is the first field and starttime the twentieth.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else float(fields[19])


def now_ns() -> int:
    """The clock of everything measured."""
    return time.monotonic_ns()
