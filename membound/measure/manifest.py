"""The manifest of a recording: on what machine, by which sensors, on which clock, at what cost, and how it ended."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from membound.measure.control import Control

SCHEMA: Final = 1
NAME: Final = "manifest.json"
# How a recording ended, or is.
STOPPED: Final = "stopped"
RUNNING: Final = "running"
ORPHANED: Final = "killed: the process that recorded ended without stopping the recording"
KILLED: Final = "killed: all processes of the recording, or the machine"
# A wall clock that is disciplined moves by less than this between two looks, s; more is a step.
_STEP: Final = 0.5


def clock() -> dict[str, int]:
    """Both clocks of the machine at one moment. All times of a recording are monotonic ones: this ties them to the wall clock."""
    return {"monotonic_ns": time.monotonic_ns(), "realtime_ns": time.time_ns()}


def steps(clocks: Sequence[Mapping[str, int]]) -> list[dict[str, float]]:
    """Where somebody set the wall clock: at which monotonic moment it was seen, and by how many s."""
    offsets = [(each["monotonic_ns"], each["realtime_ns"] - each["monotonic_ns"]) for each in clocks]
    jumps = [(after[0], (after[1] - before[1]) * 1e-9) for before, after in itertools.pairwise(offsets)]
    return [{"seen_monotonic_ns": at, "by_s": by} for at, by in jumps if abs(by) > _STEP]


def compose(plan: Mapping[str, Any], control: Control, clocks: Sequence[Mapping[str, int]], ended: str | None) -> dict[str, Any]:
    """The manifest as it is now; `ended` None: it goes on."""
    told = control.told()
    full = control.get("disk_full_ns")
    epoch = control.get("epoch_ns")
    return {
        "schema": SCHEMA,
        "ended": ended,
        "source": plan["source"],
        "epoch_ns": epoch,
        "boot_id": plan["boot"],
        "period_s": plan["period"],
        "host_period_s": plan["host_period"],
        "hbm": plan["hbm"],
        "gpus": told.get("gpus", []),
        "hardware": told.get("hardware", {}),
        "sensors": told.get("sensors", []),
        "gaps": told.get("gaps", []),
        "clocks": list(clocks),
        "wall_clock_steps": steps(clocks),
        "sampler": _processes(control, told),
        "ticks_missed": control.get("ticks_missed"),
        "reads_missed": control.get("reads_missed"),
        "disk_full_at_s": (full - epoch) * 1e-9 if full else None,
        "rows_lost": control.get("rows_lost"),
        "shared": plan["shared"],
    }


def _processes(control: Control, told: Mapping[str, Any]) -> dict[str, Any]:
    began = control.get("began_ns")
    lived = control.get("beat_ns") - began
    spent = control.get("cpu_ns")
    return {
        "pid": control.get("sampler_pid"),
        "drain_pid": control.get("drain_pid"),
        "priority": told.get("priority"),
        "python": told.get("python"),
        "cpu_s": (spent + control.get("cpu_before_ns")) * 1e-9,
        "cpu_share": (spent - control.get("cpu_began_ns")) / lived if lived > 0 else None,
        "drain_cpu_s": control.get("drain_cpu_ns") * 1e-9,
        "calls": told.get("calls"),
        "gave_up": bool(control.get("gave_up")),
        "restarts": {"sampler": control.get("sampler_restarts"), "drain": control.get("drain_restarts")},
    }


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """Put `document` in the place of the manifest, whole. Raises `OSError`."""
    draft = folder / f".{NAME}.draft"
    draft.write_text(json.dumps(document, indent=1) + "\n")
    draft.replace(folder / NAME)


def read(folder: Path) -> dict[str, Any]:
    """The manifest as it was last written; empty where it never was."""
    try:
        document: dict[str, Any] = json.loads((folder / NAME).read_text())
    except (OSError, ValueError):
        return {}
    return document
