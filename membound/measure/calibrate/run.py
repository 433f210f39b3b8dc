"""The door to measuring kernels for those who have no PyTorch loaded: a process of its own, followed line by line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from membound.errors import MeasureError

Row = dict[str, str]
COLUMNS: Final = ("family", "op", "shapes", "dtype", "seconds_cold", "seconds_warm", "bytes", "flops", "power", "notes")
MARK: Final = "measured "
"""What the worker's own lines begin with: libraries that it loads write to the same place."""
_WORKER: Final = "membound.measure.calibrate.worker"


@dataclass(frozen=True)
class Measured:
    """What a worker measured."""

    rows: tuple[Row, ...]
    """Kernels as bench.py's columns have them, those that failed included."""
    environment: dict[str, Any]
    """Hardware and software."""
    left_out: tuple[str, ...] = ()
    """Families that ended early, or never began, each with its reason."""

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows that have a reason in place of times."""
        return tuple(row for row in self.rows if row["notes"].startswith("failed"))


def measure(out: Path, seconds: float, dry: bool, hear: Callable[[str], None]) -> Measured:
    """Measure all families into `out`, and OUT.json beside it, within `seconds` and some; `hear` is told of each. Raises `MeasureError`."""
    command = [sys.executable, "-W", "ignore", "-m", _WORKER, str(out), "--seconds", str(seconds), *(["--dry"] if dry else [])]
    said, last = [], "it said nothing"
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace") as child:
        try:
            assert child.stderr is not None
            for line in child.stderr:
                last = line.strip() or last
                if line.startswith(MARK):
                    said.append(last.removeprefix(MARK))
                    hear(said[-1])
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        raise MeasureError(f"measuring kernels ended with status {child.returncode}: {last}")
    left = tuple(line for line in said if any(reason in line for reason in (": no time left", ": stopped: ", ": cut off ")))
    return read(out, left)


def read(out: Path, left_out: tuple[str, ...] = ()) -> Measured:
    """What a worker wrote to `out`; the environment is empty where none lies beside it. Raises `MeasureError`."""
    try:
        with out.open(newline="", encoding="utf-8") as file:
            rows = tuple({name: row[name] or "" for name in COLUMNS} for row in csv.DictReader(file) if row["family"] != "done")
        beside = out.with_suffix(".json")
        return Measured(rows, json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}, left_out)
    except KeyError as error:
        raise MeasureError(f"{out}: not measured kernels: no column {error}") from None
    except (OSError, ValueError) as error:
        raise MeasureError(f"{out}: not readable as measured kernels: {error}") from None
