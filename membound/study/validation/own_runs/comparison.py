"""Prediction against Runs that we measured ourselves: time, traffic, power, energy and memory of the same Jobs on the same machine.

Reads what `validation/measure_jobs.py` writes: one Run's document per line. A job that was measured again stands in the later file. Of a
repetition whose HBM bytes CUPTI counted, `NAME@pm`, only these bytes are taken: counting holds the clocks, and so time and power.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from membound.errors import MemboundError, RecordError
from membound.spec import catalogue, fields
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.study.predicting import Predictor
from membound.study.validation.own_runs.alike import ENDS, as_run

TRAFFIC: Final = "hbm.traffic"
"""Bytes read and written of one GPU's memory in a step, together: what a rate and a time make where no counter told read from write."""

QUANTITIES: Final = (
    "step.time", "gpu.memory.allocated.peak", "gpu.memory.reserved.peak", "gpu.memory.used.peak", TRAFFIC, "hbm.utilisation.mean",
    "gpu.power.mean", "gpu.energy.step", "gpu.busy",
)  # fmt: skip
"""What is compared."""

HOST: Final = "host.json"
"""Beside the runs: {"settings": fields of the Machine that say what host measured them, "why": where those come from, "layers": seconds that a
layer of each tiny model takes by the law at call_time 1, for runs whose host's pace was measured beside them, "slower_of_two": what the slower of two
of its processes takes over their mean, for the others that have two ranks}."""
LEFT_OUT: Final = "left_out.json"
"""Beside the runs: by job, why what was measured is no longer the program that is predicted; which is told instead of a comparison."""
COUNTS: Final = "counts.json"
"""Beside the runs: bytes read and written of a step by job, counted kernel by kernel (`validation/count_bytes.py`)."""

# torchrun gives each rank one thread unless OMP_NUM_THREADS says otherwise, and validation/measure_jobs.py starts several ranks by it.
_BY_TORCHRUN: Final[dict[str, object]] = {"host.threads_per_rank": 1}

COUNTED: Final = "@pm"
"""Ends the name of a repetition whose HBM bytes CUPTI counted."""

_CHANGED: Final = {
    ("gemma-2-", "transformers"): (
        (5, 21),
        "its attention ran fused and without its soft cap then; since 5.21 it is written out, as it is predicted",
    ),
}
"""Models, by the beginning of their names, whose code a package changed so that the same Job is another program: since which version, and how."""

BUSY: Final = 0.9
"""Share of time with a kernel running from which a run is bound by its GPU: below, by how fast the host launches."""


@dataclass(frozen=True)
class OwnRun:
    """One measured Job: (measured, predicted, low, high) by quantity, in SI units."""

    name: str
    file: str
    versions: dict[str, str]
    gpu: str
    pairs: dict[str, tuple[float, float, float, float]]
    why: str | None = None
    """Why there is nothing to compare."""
    technique: str = ""
    """Engine, and method where there is none: `lora`, `fsdp`, `zero-3 with offload`."""
    rated: float | None = None
    """HBM bytes a step by GPM's rate."""
    counted: float | None = None
    """HBM bytes a step by the GPU's own counters, in a repetition of its own."""
    varies: bool = False
    """Whether rows differ in length."""
    before: tuple[float, ...] = ()
    """Step times of the same Job in earlier files, s: on another machine of the same kind, or another day."""

    def ratio(self, quantity: str) -> float | None:
        """Predicted over measured."""
        if quantity not in self.pairs:
            return None
        measured, predicted, _, _ = self.pairs[quantity]
        return predicted / measured if measured else None

    @property
    def bound_by_gpu(self) -> bool:
        """Whether the measured GPU hardly ever waited for its host."""
        return self.pairs.get("gpu.busy", (0.0,))[0] >= BUSY


@dataclass(frozen=True)
class Errors:
    """Relative errors of one quantity over some runs."""

    count: int
    mean: float
    median: float
    worst: float
    """Signed."""
    inside: int
    """Runs whose measured value lies within the predicted band."""
    sizes: tuple[float, ...] = ()
    """Each, unsigned, in the order of the runs."""


def compare(folder: Path, predictor: Predictor, heard: Callable[[str], None]) -> list[OwnRun]:
    """All measured Jobs in `folder`/results*.jsonl, predicted on the host that measured them, as `HOST` beside them describes it.

    Raises `RecordError` for files that hold something else.
    """
    host = _document(folder / HOST)
    counts = {name: float(found["read"] + found["write"]) for name, found in _document(folder / COUNTS).items()}
    found = [(record, file) for file in sorted(folder.glob("results*.jsonl")) for record in _records(file)]
    latest = {record["name"]: (record, file) for record, file in found}
    sampled = {name.removesuffix(COUNTED): _traffic(record["run"], None) for name, (record, _) in latest.items() if name.endswith(COUNTED)}
    counted = {**counts, **sampled}
    jobs = [each for name, each in latest.items() if not name.endswith(COUNTED)]
    left_out = _document(folder / LEFT_OUT)
    runs = [
        _compared(record, file, left_out.get(record["name"]), _host_of(record, host), counted.get(record["name"]), predictor, heard)
        for record, file in jobs
    ]
    return [dataclasses.replace(run, before=_before(run, [record for record, _ in found])) for run in runs]


def _host_of(record: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Fields of the Machine that say what host measured `record`, with its pace at that hour where that was measured.

    The pace is what a layer of each tiny model took just before and just after the job, over what the law makes of it: the median of the models.
    Where it is not known and two ranks wait for each other, it is that of the slower.
    """
    settings, layers = dict(host.get("settings", {})), dict(host.get("layers", {}))
    paces = [each["layers"] for each in record.get("pace") or () if each]
    known = [title for title in layers if all(title in each for each in paces)]
    if paces and known:
        ratios = [statistics.mean(each[title]["mean"] for each in paces) / layers[title] for title in known]
        settings["host.call_time"] = round(statistics.median(ratios), 3)
    elif record["run"]["job"].get("gpus") == 2 and "host.call_time" in settings:
        settings["host.call_time"] = round(float(settings["host.call_time"]) * float(host.get("slower_of_two", 1.0)), 3)
    return settings


def _before(run: OwnRun, records: list[dict[str, Any]]) -> tuple[float, ...]:
    """Step times of all but the latest record of the Job of `run`, s, oldest first."""
    same = [record["run"]["values"].get("step.time", {}).get("value") for record in records if record["name"] == run.name and record["run"]]
    return tuple(float(value) for value in same[:-1] if isinstance(value, float))


def errors(runs: list[OwnRun], quantity: str) -> Errors | None:
    """How far `quantity` is off over `runs`; None where none has it."""
    known = [run for run in runs if run.ratio(quantity) is not None]
    off = [(run.ratio(quantity) or 1.0) - 1 for run in known]
    if not off:
        return None
    inside = sum(low <= measured <= high for measured, _, low, high in (run.pairs[quantity] for run in known))
    sizes = [abs(each) for each in off]
    return Errors(len(off), statistics.mean(sizes), statistics.median(sizes), max(off, key=abs), inside, tuple(sizes))


def _records(file: Path) -> Iterator[dict[str, Any]]:
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["run"]["origin"] == "measured":
                yield record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file}: not documents of measured Runs ({error})") from None


def _document(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise RecordError(f"{file}: not a JSON object ({error})") from None


def _compared(
    record: dict[str, Any],
    file: Path,
    left_out: str | None,
    settings: dict[str, Any],
    counted: float | None,
    predictor: Predictor,
    heard: Callable[[str], None],
) -> OwnRun:
    document, name = record["run"], str(record["name"])
    about = document.get("about", {})
    versions = {package: str(version) for package, version in about.get("versions", {}).items()}
    gpu = next((str(rank.get("gpu")) for rank in about.get("ranks", {}).values()), "")
    if not isinstance(document["values"].get("step.time", {}).get("value"), float):
        how = about.get("ended", {}).get("said") or about.get("ended", {}).get("how") or "no step was timed"
        return OwnRun(name, file.name, versions, gpu, {}, str(how))
    other = left_out or _other_program(document["job"]["model"], versions)
    if other:
        return OwnRun(name, file.name, versions, gpu, {}, other)
    heard(f"measured: {name}")
    try:
        job = fields.read(Job, document["job"])
        launched = _BY_TORCHRUN if about.get("options", {}).get("launcher") == "torchrun" else {}
        machine = fields.with_values(catalogue.machine(document["machine"]["name"]), {**settings, **launched}, "machine").with_gpus(job.gpus)
        predicted = as_run(job, machine, about, predictor)
    except MemboundError as error:
        return OwnRun(name, file.name, versions, gpu, {}, str(error))
    rated = _traffic(document, machine)
    traffic = counted or rated
    measured = {**document["values"], TRAFFIC: {"value": traffic} if traffic else {}}
    predicted[TRAFFIC] = _both_ways(predicted)
    varies = job.data.lengths is not None or job.data.path is not None
    pairs = {quantity: _pair(measured.get(quantity, {}), predicted.get(quantity, {})) for quantity in QUANTITIES}
    known = {quantity: pair for quantity, pair in pairs.items() if pair is not None}
    return OwnRun(name, file.name, versions, gpu, known, None, _technique(job), rated, counted, varies)


def _other_program(model: str, versions: dict[str, str]) -> str:
    """Why a run of `model` with packages of `versions` did not run the program that is predicted; empty where it did, or nothing is known."""
    for (begins, package), (since, how) in _CHANGED.items():
        version = versions.get(package, "")
        numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
        if model.startswith(begins) and len(numbers) == 2 and tuple(numbers) < since:
            return f"measured with {package} {version}: {how}"
    return ""


def _technique(job: Job) -> str:
    recipe = job.recipe
    if recipe.engine == "none":
        return recipe.method
    offloads = {recipe.offload.optimizer, recipe.offload.params} != {"none"}
    return (f"zero-{recipe.zero_stage}" if recipe.engine == "deepspeed" else recipe.engine) + (" with offload" if offloads else "")


def _traffic(document: dict[str, Any], machine: Machine | None) -> float | None:
    """Measured bytes a step: counted each way, or the mean rate over the marked steps times the mean time of the same steps.

    A rate that was told as a share of the peak is that of the peak as `machine` has it now. The mean, not `step.time`, which is a median: where
    rows differ in length, a few long steps move many of the bytes.
    """
    values, job = document["values"], document["job"]
    counted = _both_ways(values)
    share, rows = values.get("hbm.utilisation.mean", {}).get("value"), values.get("samples.rate", {}).get("value")
    rate = share * machine.gpu.hbm.bandwidth if share and machine else values.get("hbm.bandwidth.mean", {}).get("value")
    if counted:
        return float(counted["value"])
    return float(rate * job["recipe"]["micro_batch"] * job["recipe"]["accumulation"] * job["gpus"] / rows) if rate and rows else None


def _both_ways(values: dict[str, Any]) -> dict[str, Any]:
    """Bytes read and written together, its band from the ends of both; empty unless both are there."""
    ways = [values.get(f"hbm.traffic.{way}", {}) for way in ("read", "write")]
    return {key: sum(float(way[key]) for way in ways) for key in ENDS} if all("value" in way for way in ways) else {}


def _pair(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[float, float, float, float] | None:
    if "value" not in measured or "value" not in predicted:
        return None
    return float(measured["value"]), float(predicted["value"]), float(predicted["low"]), float(predicted["high"])
