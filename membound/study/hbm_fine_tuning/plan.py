"""What the study runs: jobs on machines, as `data/hbm_fine_tuning/plan.yaml` has them, and the report's own runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

from membound.spec import catalogue, fields, safe_yaml
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.study.claims import published

_PLAN: Final = "hbm_fine_tuning/plan.yaml"
OF_REPORT: Final = "the report's"
"""Family of runs that only the report's statements need."""


@dataclass(frozen=True)
class Point:
    """One Job on one Machine, under a name that a folder can have."""

    name: str
    job_name: str
    title: str
    family: str
    job: Job
    machine: Machine
    """The part that the Job uses."""


@dataclass(frozen=True)
class Plan:
    """All points by name, and which of them stand for the report's runs."""

    points: Mapping[str, Point]
    report: Mapping[str, str]
    """Name of the point by the report's id."""
    variants: Mapping[tuple[str, str], str]
    """Name of the point by the report's id and a setting of what it leaves open."""
    plausible: Mapping[str, str] = field(default_factory=dict)
    """Name of the point under the most plausible setting by the report's id: often the same as in `report`."""


@functools.cache
def plan() -> Plan:
    """The whole study, the longest captures first."""
    document = safe_yaml.mapping(_text(_PLAN), _PLAN)
    points: dict[str, Point] = {}
    for name, entry in document["jobs"].items():
        job = _job(entry)
        for machine in entry["over"]:
            made = Point(f"{name}.{machine}", name, entry["title"], entry["family"], job, _machine(job, document["machines"][machine]))
            points[made.name] = made
    return _with_report(points, document["settings"])


def _job(entry: Mapping[str, Any]) -> Job:
    if "file" in entry:
        return fields.read(Job, safe_yaml.mapping(_text(entry["file"]), entry["file"]))
    experiment = published.experiment(entry["most_plausible"])
    setting = experiment.most_plausible
    assert setting is not None
    return experiment.variant(setting)


PLAUSIBLE: Final = "-plausible"
"""End of the name of a job of the report under its most plausible setting; in front of it the usual job's."""


def title(name: str) -> str:
    """Words for the job called `name`."""
    return next((point.title for point in plan().points.values() if point.job_name == name), name)


def of_class(runs: Mapping[str, Any], clock: str = "2619") -> dict[str, str]:
    """Of each job that has a run at `clock` MHz among `runs`: the name of that run, by the job's name; memory-only jobs left out."""
    found = {
        point.job_name: name for name, point in plan().points.items() if name.endswith(f".{clock}") and point.family not in {"memory", OF_REPORT}
    }
    return {job: name for job, name in found.items() if name in runs}


def _with_report(points: dict[str, Point], settings: Mapping[str, list[str]]) -> Plan:
    """With the report's own runs, each of which may be one of ours already, and those under other settings."""
    # The classes of models go by their job's name in the report's statements.
    classes = {point.job_name: name for name, point in points.items() if name.endswith(".2619")}
    known = {_content(point.job, point.machine): name for name, point in points.items()}
    report: dict[str, str] = {}
    variants: dict[tuple[str, str], str] = {}
    plausible: dict[str, str] = {}
    for name, experiment in published.experiments().items():
        content = _content(experiment.job, experiment.machine)
        if content not in known:
            known[content] = name
            points[name] = Point(name, name, experiment.title, OF_REPORT, experiment.job, experiment.machine)
        report[name] = known[content]
        for setting in experiment.settings:
            if setting.name in settings.get(name, ()):
                words, job = f"{experiment.title}, {setting.name}", experiment.variant(setting)
                made = Point(f"{name}.{setting.name.replace(' ', '')}", name, words, OF_REPORT, job, experiment.machine)
                # The most plausible settings are jobs of the plan already.
                variants[name, setting.name] = known.setdefault(_content(job, experiment.machine), made.name)
                if variants[name, setting.name] == made.name:
                    points[made.name] = made
        if (best := experiment.most_plausible) is not None:
            plausible[name] = known[_content(experiment.variant(best), experiment.machine)]
    return Plan(points, {**{name: point for name, point in classes.items() if name not in report}, **report}, variants, plausible)


def _machine(job: Job, changes: Mapping[str, object]) -> Machine:
    assert job.machine is not None
    machine = catalogue.machine(job.machine)
    return (fields.with_values(machine, changes, "machine") if changes else machine).with_gpus(job.gpus)


def _content(job: Job, machine: Machine) -> str:
    return json.dumps([job.model_dump(mode="json"), machine.model_dump(mode="json")], sort_keys=True)


def _text(file: str) -> str:
    return resources.files("membound.study").joinpath(f"data/{file}").read_text(encoding="utf-8")
