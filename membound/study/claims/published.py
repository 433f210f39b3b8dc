"""The report's own numbers: what A memory perspective: fine-tuning on HBM (Micron, 2024) states of its runs, as Runs of origin 'published'.

Data lies in `data/report`: `runs.yaml` (values of single runs with the words and the place), `jobs/` (job files), `settings.yaml` (what the
report leaves open, with reasons). Statements that relate runs to each other are in `stated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from membound import units
from membound.errors import UnknownNameError
from membound.run import quantities
from membound.run.schema import Fits, Missing, Run, Value
from membound.spec import catalogue, fields, safe_yaml
from membound.spec.job import Job
from membound.spec.machine import Machine

UNSTATED: Final = "the report does not state it"


@dataclass(frozen=True)
class Setting:
    """One plausible choice of what the report leaves open."""

    name: str
    changes: Mapping[str, object]
    """Fields of the Job, dotted."""
    reason: str
    most_plausible: str = ""
    """Why it is the most plausible of all, by the report's own words; empty of the others."""
    rests_on: tuple[str, ...] = ()
    """Statements that this reason rests on, by id: they are no test of it."""


@dataclass(frozen=True)
class Experiment:
    """One run of the report: what was run on what, what is open, and what is stated of it."""

    id: str
    title: str
    section: str
    job: Job
    """As the job file has it: one of the plausible settings."""
    machine: Machine
    """The part that the Job uses."""
    settings: tuple[Setting, ...]
    run: Run
    """What the report states."""

    def variant(self, setting: Setting) -> Job:
        """The Job with `setting` made."""
        return fields.with_values(self.job, setting.changes)

    @property
    def most_plausible(self) -> Setting | None:
        """The most plausible setting; None where nothing is open that matters."""
        return next((each for each in self.settings if each.most_plausible), None)


def experiments() -> dict[str, Experiment]:
    """All runs that the report tells of with a Job of their own, by id, in its order."""
    document = _document("runs.yaml")
    settings = {name: tuple(_setting(each) for each in found or ()) for name, found in _document("settings.yaml").items()}
    return {name: _experiment(name, each, document["source"], settings) for name, each in document["runs"].items()}


def runs() -> dict[str, Run]:
    """What the report states, by id: one Run each."""
    return {name: experiment.run for name, experiment in experiments().items()}


def experiment(name: str) -> Experiment:
    """The experiment called `name`. Raises `UnknownNameError`."""
    known = experiments()
    if name not in known:
        raise UnknownNameError("run", name, known)
    return known[name]


def text(file: str) -> str:
    """A file of the report's data."""
    return resources.files("membound.study").joinpath(f"data/report/{file}").read_text(encoding="utf-8")


def _document(file: str) -> dict[str, Any]:
    return safe_yaml.mapping(text(file), file)


def _setting(entry: Mapping[str, Any]) -> Setting:
    return Setting(entry["name"], entry["changes"], entry["reason"], entry.get("most_plausible", ""), tuple(entry.get("rests_on", ())))


def _experiment(name: str, entry: Mapping[str, Any], source: str, settings: Mapping[str, tuple[Setting, ...]]) -> Experiment:
    job = fields.read(Job, _document(f"jobs/{entry['job']}.yaml"))
    assert job.machine is not None
    machine = catalogue.machine(job.machine)
    if changes := entry.get("machine"):
        machine = fields.with_values(machine, changes, "machine")
    machine = machine.with_gpus(job.gpus)
    return Experiment(name, entry["title"], entry["section"], job, machine, settings[entry["settings"]], _run(entry, job, machine, source))


def _run(entry: Mapping[str, Any], job: Job, machine: Machine, source: str) -> Run:
    stated = {name: _value(name, each) for name, each in entry["values"].items()}
    values: dict[str, Value | Missing] = {name: stated.get(name, Missing(UNSTATED)) for name in quantities.QUANTITIES}
    about = {"title": entry["title"], "source": source, "section": entry["section"], "notes": [_open(entry["settings"])]}
    return Run("published", job.model_dump(mode="json"), machine.model_dump(mode="json"), _fits(entry), values, about=about)


def _open(settings: str) -> str:
    if settings == "none":
        return "what the report leaves open does not matter here"
    return f"micro-batch, accumulation and recomputation are not stated: the job is one of the plausible settings '{settings}'"


def _fits(entry: Mapping[str, Any]) -> Fits:
    gpu, host = entry.get("gpu_fits", True), entry.get("host_fits", True)
    return Fits(gpu, host, None if gpu and host else f"out of {'host' if gpu else 'GPU'} memory")


def _value(name: str, entry: Mapping[str, Any]) -> Value:
    unit = quantities.quantity(name).unit
    value, low, high = (units.parse(entry[key], unit, f"{name}.{key}") for key in ("value", "low", "high"))
    return Value(value, unit, low, high, f"{entry['at']}: {entry['words']}")
