"""What a measured sweep does at each clock: `membound measure` in a process of its own; and what keeps GPUs busy while clocks are read back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from membound.errors import InputError, MeasureError, RecordError
from membound.measure.clocks import nvml, simulated, simulated_board
from membound.measure.clocks.driver import Driver
from membound.measure.clocks.verifying import Load
from membound.run.schema import Missing, Run
from membound.study.measuring import load as read_run
from membound.study.sweep.switching import Failed
from membound.study.sweep.switching import Sweep as Measured
from membound.study.sweep.values import NAMES

VALUES: Final = (*NAMES, "hbm.utilisation.peak", "gpu.power.peak", "gpu.memory.used.peak")
"""Quantities that a measured point shows; its Run has all."""
# For a process that loads CUDA and PyTorch from a cold disk, and for one that ends, s. Chosen.
_PATIENCE: Final = 120.0


@dataclass(frozen=True)
class Errand:
    """What is measured: a job file with changes, into a folder with a Run for each clock. Plain values, so that a plan can keep it."""

    job: str
    folder: str
    changes: tuple[str, ...] = ()
    machine: str | None = None
    steps: int = 20

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Self:
        """The errand that a plan kept. Raises `RecordError`."""
        try:
            return cls(
                str(payload["job"]), str(payload["folder"]), tuple(map(str, payload["changes"])), payload["machine"], int(payload["steps"])
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"this plan does not say what to measure ({error})") from None

    def place(self, clock: int) -> Path:
        """Folder of the Run at memory `clock`, Hz."""
        return Path(self.folder) / f"{clock // 1_000_000}MHz"


def measuring(errand: Errand, driver: Driver, uuids: Sequence[str]) -> Callable[[int], Run]:
    """Measures at a memory clock, Hz, that is already set. Raises `MeasureError`."""
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ",".join(uuids)} if driver.address == nvml.ADDRESS else {})}

    def measure(clock: int) -> Run:
        place = errand.place(clock)
        command = [sys.executable, "-m", "membound", "measure", errand.job, "--out", str(place), "--steps", str(errand.steps), "--json"]
        command += [part for change in errand.changes for part in ("--set", change)]
        command += ["--machine", errand.machine] if errand.machine is not None else []
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or [f"ended with status {done.returncode}"]
            raise MeasureError(f"at {clock // 1_000_000} MHz: {said[0].removeprefix('membound: ')}")
        return read_run(place)

    return measure


def load_of(driver: Driver) -> Load:
    """What keeps this driver's GPUs busy: matrix products in a process of its own; on a simulated machine, a note that they are."""
    if driver.address == nvml.ADDRESS:
        return _multiplying
    folder = Path(driver.address.removeprefix(simulated.SCHEME))

    @contextmanager
    def noted(uuids: Sequence[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for uuid in uuids:
                stack.enter_context(simulated_board.loaded(folder, uuid))
            yield

    return noted


@contextmanager
def _multiplying(uuids: Sequence[str]) -> Iterator[None]:
    command = [sys.executable, "-m", "membound.measure.multiply"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(uuids)}
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        if child.stdout.readline().strip() != "ready":
            said = child.stderr.read().strip().splitlines()[-1:] or ["it ended"]
            raise MeasureError(f"the GPUs could not be kept busy to read their clocks back: {said[0]}")
        yield
    finally:
        try:
            # The end of its input is its sign; the GPU must be free again before anything else is done with it.
            child.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()


def gpus_of(driver: Driver, count: int) -> tuple[str, ...]:
    """UUIDs of the first `count` GPUs. Raises `InputError` where there are fewer."""
    there = [gpu.uuid for gpu in driver.gpus()]
    if count > len(there):
        raise InputError("gpus", count, f"this machine has {len(there)}: write {len(there)} or fewer")
    return tuple(there[:count])


def document(found: Measured[Run], over: Sequence[int]) -> dict[str, Any]:
    """The JSON document of a measured sweep over memory clocks, Hz."""
    return {
        "schema": 1,
        "origin": "measured",
        "axes": [{"key": "machine.gpu.hbm.clock", "unit": "Hz", "values": list(over)}],
        "points": [_entry(point) for point in found.points],
        "refused": found.refused,
        "plan": None if found.plan is None else str(found.plan),
        "steps": list(found.steps),
    }


def _entry(point: Any) -> dict[str, Any]:
    at = {"machine.gpu.hbm.clock": point.memory}
    if isinstance(point, Failed):
        return {"at": at, "refused": point.reason}
    run: Run = point.result
    clocks = {
        uuid: {"memory": seen.memory, "core": seen.core, "looks": seen.looks, "reasons": dict(seen.reasons)} for uuid, seen in point.watched.items()
    }
    values = {name: run.values.get(name, Missing("not measured")).document() for name in VALUES}
    return {"at": at, "way": point.way or None, "values": values, "clocks": clocks, "restored": list(point.restored)}
