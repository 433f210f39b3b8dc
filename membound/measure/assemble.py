"""From whatever lies in a measurement's folder to its Run: complete, cut short, out of memory, or killed at any moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from membound import __version__
from membound.errors import MemboundError, RecordError
from membound.measure import allocator_curves, marks, outcome, summary_memory, summary_series, summary_steps, tree
from membound.measure.evidence import Evidence, Values, exact
from membound.measure.place import Place, read_json
from membound.measure.plan import Plan
from membound.measure.recording import read
from membound.run.quantities import QUANTITIES
from membound.run.schema import Missing, Run

_PREDICTED = Missing("cannot be measured: the prediction of the same job tells it")


def assemble(folder: Path) -> Run:
    """The Run of the measurement whose files lie in `folder`, which may still be under way, or may have been killed.

    Raises `RecordError` where no measurement began.
    """
    place = Place(folder)
    if not place.unfinished():
        raise RecordError(f"{folder}: holds no measurement")
    evidence = gather(place)
    values = summarise(evidence)
    tables = {**evidence.tables, "marks": evidence.spans}
    processes = tree.table(place.processes, evidence.epoch_ns)
    if processes.num_rows:
        tables["processes"] = processes
    if "gpu" in tables and evidence.facts("memory"):
        tables["gpu"] = allocator_curves.beside(evidence, tables["gpu"])
        tables["curves"] = allocator_curves.origins(evidence, tables["curves"])
    plan = evidence.plan
    return Run("measured", plan.job, plan.machine, evidence.outcome.fits, values, tables, _about(place, evidence))


def gather(place: Place) -> Evidence:
    """All that lies in `place`."""
    plan = Plan.read(read_json(place.plan))
    lines = marks.read(place.marks)
    tables, manifest, unsampled = _samples(place, plan)
    epoch = int(manifest.get("epoch_ns") or plan.epoch_ns)
    return Evidence(plan, outcome.of(place, plan), lines, marks.table(lines, epoch), tables, manifest, unsampled, epoch)


def _samples(place: Place, plan: Plan) -> tuple[Mapping[str, pa.Table], Mapping[str, Any], str]:
    if not plan.options.sampled:
        return {}, {}, "the sampler did not run"
    try:
        samples = read(place.samples)
    # Killed before the sampler wrote anything, or a damaged file: the rest still tells.
    except (MemboundError, pa.ArrowException, OSError) as error:
        return {}, {}, f"no samples can be read: {error}"
    return samples.tables, {**samples.manifest, "ended": samples.ended}, ""


def summarise(evidence: Evidence) -> Values:
    """Every quantity of the registry: measured, or missing with its reason."""
    found: Values = {}
    for part in (summary_memory.values, summary_steps.values, summary_series.values):
        found |= part(evidence)
    models = evidence.facts("model")
    counted = models[min(models)][-1] if models else {}
    for name, key in {"model.parameters": "parameters", "model.parameters.trained": "trained"}.items():
        if key in counted:
            found[name] = exact(name, counted[key], "counted")
    return {name: found.get(name, _why(name, evidence)) for name in QUANTITIES}


def _why(name: str, evidence: Evidence) -> Missing:
    if name in {"flops.model", "mfu"}:
        return _PREDICTED
    return Missing("a watched command does not say" if evidence.plan.command is not None else f"not reached: {evidence.outcome.said}")


def _about(place: Place, evidence: Evidence) -> dict[str, Any]:
    plan, ended = evidence.plan, evidence.outcome
    return {
        "membound": __version__,
        **plan.about,
        "process": dict(plan.process),
        "ended": {"how": ended.how, "said": ended.said, "status": ended.status, "asked": ended.asked},
        "options": plan.document()["options"],
        "counted_steps": evidence.window.steps,
        "losses": summary_steps.losses(evidence),
        "ranks": {str(rank): lines[0] for rank, lines in evidence.facts("rank").items()},
        "meetings": {str(rank): [line["t"] for line in lines] for rank, lines in evidence.facts("meet").items()},
        "epoch_ns": evidence.epoch_ns,
        "sampler": dict(evidence.manifest),
        **({"log": place.tail()} if not ended.answered and plan.command is None else {}),
    }
