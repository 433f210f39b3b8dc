"""A prediction of the run that was measured, not of the long training that its Job stands for: rows that it was fed, lengths that were new to it."""

from __future__ import annotations

from typing import Any, Final

from membound.cost import cudnn_graphs
from membound.cost.dispatch import CUDNN
from membound.cost.power import energy_of
from membound.measure import warm_up
from membound.replay import lengths as replay_lengths
from membound.spec import lengths
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.study.predicting import Prediction, Predictor

ENDS: Final = ("value", "low", "high")
"""Of a value: itself and the ends of its band."""
_PEAKS: Final = ("gpu.memory.allocated.peak", "gpu.memory.reserved.peak", "gpu.memory.used.peak")


def as_run(job: Job, machine: Machine, about: dict[str, Any], predictor: Predictor) -> dict[str, Any]:
    """Values of a run of `job` on `machine` that says `about` itself how many steps it made, after how many. Raises what `predictor` does."""
    found = predictor.predict(job, machine)
    values = dict(found.run.document()["values"])
    longest = longest_met(job, about)
    if longest < job.data.cap:
        # Memory is planned for rows at the cap, of which this run met none.
        shorter = job.model_copy(update={"data": job.data.model_copy(update={"max_length": longest})})
        at_longest = predictor.predict(shorter, machine).run.document()["values"]
        values |= {name: at_longest[name] for name in _PEAKS}
    if _by_cudnn(found, machine) and _mostly_new(job, about):
        still = machine.gpu.power.idle + energy_of(machine.gpu).active
        values |= waiting(values, cudnn_graphs.STEP * job.recipe.accumulation, still)
    return values


def longest_met(job: Job, about: dict[str, Any]) -> int:
    """Tokens of the longest row that the run was fed: stored lengths come in their order. The cap where they are not stored, or not fed."""
    options = about.get("options", {})
    if job.data.lengths is None or options.get("feed") != "rows" or not options.get("steps"):
        return job.data.cap
    rows = lengths.stored(job.data.lengths)[: lengths.ROWS]
    fed = int(options["steps"]) * job.recipe.accumulation * job.recipe.micro_batch * job.gpus
    return min(max(rows[:fed]), job.data.cap)


def _by_cudnn(found: Prediction, machine: Machine) -> bool:
    """Whether attention is cuDNN's there, and not only preferred: 4-bit layers hand on numbers of 32 bits, which it does not take."""
    return any(op.startswith(CUDNN) for group in found.timing.played.work.groups for op in group.on(machine.gpu).op)


def _mostly_new(job: Job, about: dict[str, Any]) -> bool:
    """Whether half or more of the micro-steps that were counted met a row length that had not come up: the median step is then made of those."""
    name, options = job.data.lengths, about.get("options", {})
    if name is None or int(options.get("warm_up", 0)) >= warm_up.steps(job):
        return False
    _, likely = replay_lengths.of(job, lengths.stored(name)).longest_of(job.recipe.micro_batch)
    before, counted = int(options.get("warm_up", 0)), int(about.get("counted_steps") or 1)
    return cudnn_graphs.first_met(likely, before * job.recipe.accumulation, counted * job.recipe.accumulation) >= 0.5


def waiting(values: dict[str, Any], seconds: float, watts: float) -> dict[str, Any]:
    """What of `values` is another where each step has so many `seconds` more in which nothing runs, and the board draws `watts`."""
    step = values["step.time"]["value"]
    share = step / (step + seconds)
    scaled = {
        "step.time": (1.0, seconds), "gpu.busy": (share, 0.0), "hbm.utilisation.mean": (share, 0.0),
        "gpu.power.mean": (share, watts * (1 - share)), "gpu.energy.step": (1.0, watts * seconds),
    }  # fmt: skip
    return {
        name: {key: value * factor + more if key in ENDS else value for key, value in values[name].items()}
        for name, (factor, more) in scaled.items() if "value" in values.get(name, {})
    }  # fmt: skip
