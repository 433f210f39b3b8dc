"""From measured kernels to a profile: what this GPU and its host really do, for predictions to use from then on.

Nothing is set on the GPU: no clock, no power limit. The constants of a rate that too few kernels hang on stay those of the reference, which is the
shipped profile of this GPU or its nearest relative, and are named.
"""

from __future__ import annotations

import csv
import datetime
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from membound import __version__
from membound.cost import profile, profile_text
from membound.cost.profile import FACTORS, Profile
from membound.errors import InputError, MeasureError
from membound.folders import disk_error
from membound.measure import here
from membound.measure.calibrate import run
from membound.measure.calibrate.run import Measured
from membound.spec import catalogue
from membound.spec.machine import Machine
from membound.study.calibration import host, rates
from membound.study.calibration.factors import copy_latency, factors
from membound.study.calibration.samples import samples

SCHEMA: Final = 1
# What a dry run is fitted as, where no machine is named: the GPU whose profile ships.
_DRY: Final = "h100-sxm"


@dataclass(frozen=True)
class Fitted:
    """A profile and what it was made from."""

    profile: Profile
    reference: Profile
    """What it began as."""
    kernels: Mapping[str, int]
    """Measured kernels by rate."""
    kept: tuple[str, ...]
    """Launch prices, factors and the like that are the reference's or the laws' own, for want of measurements."""


@dataclass(frozen=True)
class Outcome:
    """A calibration: what was measured, what came of it, and where it went."""

    machine: Machine
    measured: Measured
    fitted: Fitted
    path: Path | None
    """The profile's file; None after a dry run, which leaves none."""

    @property
    def used(self) -> bool:
        """Whether predictions use the profile from now on."""
        return self.path is not None and self.path.resolve().parent == profile.folder().resolve()


def calibrate(seconds: float, out: Path | None, name: str | None, dry: bool, hear: Callable[[str], None]) -> Outcome:
    """Measure this machine's GPU for about `seconds`, and write its profile to `out`, by default into the user's own folder.

    `name` is the catalogue's machine that this is, where it is not recognised. `dry` runs all of it on the processor, tiny, and keeps nothing.
    Raises `InputError`, `MeasureError`, `StorageError`, `RecordError`.
    """
    machine = catalogue.machine(name or _DRY) if dry else _machine(name, here.gpus())
    # Laws are priced to be compared with: a profile that cannot be read is found out now rather than in four minutes.
    profile.profile_of(machine.gpu)
    target = None if dry else _target(out, machine)
    with TemporaryDirectory(prefix="membound-calibrate-") as folder:
        measured = run.measure(Path(folder) / "rows.csv", seconds, dry, hear)
    return _kept(measured, machine, target)


def from_rows(files: Sequence[Path], out: Path | None, name: str | None) -> Outcome:
    """The same from rows that were measured before, maybe elsewhere; the first file's environment is taken for that of all. Raises likewise."""
    parts = [run.read(file) for file in files]
    environment = parts[0].environment
    measured = Measured(tuple(row for part in parts for row in part.rows), environment)
    machine = _machine(name, [str(environment["gpu"])] * int(environment.get("gpus", 1)) if "gpu" in environment else [])
    return _kept(measured, machine, _target(out, machine))


def _kept(measured: Measured, machine: Machine, target: Path | None) -> Outcome:
    """Fit, and write unless there is nowhere to."""
    if target is not None:
        _alike(machine, measured.environment)
    fitted = fit(measured, machine, _source(measured.environment, target))
    if target is not None:
        _write(target, fitted.profile, measured)
    return Outcome(machine, measured, fitted, target)


def fit(measured: Measured, machine: Machine, source: str) -> Fitted:
    """The profile of `machine`'s GPU that `measured` gives."""
    gpu, rows = machine.gpu, measured.rows
    reference = profile.shipped(gpu)
    start = rates.begin(reference, gpu)
    l2 = rates.l2_bandwidth(rows, gpu)
    groups = rates.grouped(samples(rows, gpu))
    found = rates.fitted(replace(start, l2_bandwidth=l2 or start.l2_bandwidth), groups, gpu)
    launch, launch_kept = host.launch_prices(rows, reference.launch)
    ratios = factors(rows, machine, profile.profile_of(gpu))
    latency = copy_latency(rows)
    kept = [
        *(["l2_bandwidth"] if l2 is None else []),
        *(f"launch.{kind}" for kind in launch_kept),
        *(f"factors.{law}" for law in FACTORS if law not in ratios),
        *(["copy_latency"] if latency is None else []),
    ]
    made = replace(found, source=source, launch=launch, factors=ratios, copy_latency=latency)
    return Fitted(made, reference, {rate: sum(len(g.seconds) for g in members) for rate, members in groups.items()}, tuple(kept))


def _machine(name: str | None, found: list[str]) -> Machine:
    """The catalogue's machine of that name, or the one with the GPUs `found`."""
    if not found:
        raise MeasureError("no NVIDIA GPU is visible here: calibrate on the machine that has one; --dry rehearses it on the processor")
    if name is not None:
        return catalogue.machine(name)
    for some in (found, found[:1]):
        known = str(here.machine(some, len(some))["name"])
        if known in catalogue.machines():
            return catalogue.machine(known).with_gpus(len(some))
    raise InputError("--machine", found[0], "the catalogue does not recognise this GPU: name its entry with --machine (membound catalogue machines)")


def _alike(machine: Machine, environment: Mapping[str, Any]) -> None:
    """A profile under another GPU's name would mislead every prediction, and so would one of a part of a GPU."""
    sms, wanted = environment.get("sms"), machine.gpu.sms
    if sms != wanted:
        measured = f"{environment.get('gpu', 'the GPU')} that was measured has {sms or 'an unknown number of'}"
        raise InputError("--machine", machine.name, f"its GPU has {wanted} multiprocessors, {measured}: name another entry")


def _target(out: Path | None, machine: Machine) -> Path:
    path = out or profile.folder() / f"{machine.gpu.name}.yaml"
    if path.is_dir() or path.suffix != ".yaml":
        raise InputError("--out", str(path), "name a file that ends with .yaml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Found out now rather than in four minutes.
        with TemporaryDirectory(dir=path.parent, prefix=".membound-"):
            return path
    except OSError as error:
        raise disk_error(path, error) from None


def _source(environment: Mapping[str, Any], target: Path | None) -> str:
    facts = [str(environment.get("gpu", "no GPU"))]
    facts += [f"{title} {environment[key]}" for key, title in _FACTS.items() if environment.get(key) is not None]
    rows = f"; rows in {target.with_suffix('.csv').name}" if target else ""
    return f"membound {__version__} calibrate, {datetime.date.today().isoformat()}: {', '.join(facts)}{rows}"


_FACTS: Final = {"driver": "driver", "power_limit_w": "power limit in W", "torch": "PyTorch", "cuda": "CUDA", "cpu": "host"}


def _write(target: Path, made: Profile, measured: Measured) -> None:
    """The profile, its rows and what they were measured with, side by side; the profile last and at once, for predictions may run meanwhile."""
    try:
        with target.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(measured.rows[0]) if measured.rows else [])
            writer.writeheader()
            writer.writerows(measured.rows)
        target.with_suffix(".json").write_text(json.dumps(measured.environment, indent=1) + "\n", encoding="utf-8")
        draft = target.with_suffix(".draft")
        draft.write_text(profile_text.text(made), encoding="utf-8")
        draft.replace(target)
    except OSError as error:
        raise disk_error(target, error) from None


def document(outcome: Outcome) -> dict[str, Any]:
    """As `--json` prints it: SI units."""
    made, measured = outcome.fitted, outcome.measured
    dry = {"missing": "a dry run measures the processor: nothing to keep"}
    failed = [{name: row[name] for name in ("op", "shapes", "dtype", "notes")} for row in measured.failed]
    return {
        "schema": SCHEMA, "version": __version__, "gpu": outcome.machine.gpu.name, "path": str(outcome.path) if outcome.path else dry,
        "used_by_predictions": outcome.used, "environment": measured.environment, "rows": len(measured.rows), "failed": failed,
        "left_out": list(measured.left_out), "profile": _profile(made) if outcome.path else dry,
    }  # fmt: skip


def _profile(made: Fitted) -> dict[str, Any]:
    families = {
        name: {
            "kernels": made.kernels.get(name, 0), "efficiency": rate.efficiency, "fixed_s": rate.fixed, "band": rate.band,
            **({} if math.isinf(rate.elements) else {"elements_per_s": rate.elements}),
        }
        for name, rate in made.profile.families.items()
    }  # fmt: skip
    found = made.profile
    return {
        "source": found.source, "reference": made.reference.gpu, "l2_bandwidth": found.l2_bandwidth, "families": families,
        "launch_s": dict(found.launch),
        "factors": dict(found.factors),
        "copy_latency_s": found.copy_latency if found.copy_latency is not None else {"missing": "not measured"},
        "unmeasured": [*found.unmeasured, *made.kept],
    }  # fmt: skip
