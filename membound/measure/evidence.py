"""All that lies in the folder of a measurement, read once, for those who make values of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from membound.measure import marks
from membound.measure.outcome import Outcome
from membound.measure.plan import Plan
from membound.run.quantities import quantity
from membound.run.schema import Missing, Value

MEANS_BETWEEN: Final = frozenset({"gpm"})
"""Tiers whose readings are means since the reading before."""

Values = dict[str, Value | Missing]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """The time of the steps that count, s since the Run began."""

    start: float
    end: float
    steps: int
    """How many steps it holds; 0 where there are no steps, and it is the whole Run."""


@dataclass(frozen=True)
class Step:
    """One optimizer step of one rank, s since the Run began."""

    number: int
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True)
class Evidence:
    """What was asked, how it ended, what ranks marked, what the sampler saw."""

    plan: Plan
    outcome: Outcome
    lines: Mapping[int, Sequence[marks.Line]]
    """Marks by rank."""
    spans: pa.Table
    """Table `marks`."""
    tables: Mapping[str, pa.Table]
    """The sampler's tables; empty where nothing was sampled."""
    manifest: Mapping[str, Any]
    """The sampler's manifest; empty where nothing was sampled."""
    unsampled: str
    """Why there are no samples, where there are none."""
    epoch_ns: int

    @cached_property
    def steps(self) -> dict[int, list[Step]]:
        """Whole steps that count, by rank: warm-up is left out, however little it leaves."""
        first = self.plan.options.counted_from
        found: dict[int, list[Step]] = {}
        rows = self.spans.filter(pc.equal(self.spans["kind"], "step")).to_pylist()
        whole = [row for row in rows if row["end"] is not None]
        # A run that was cut short in its warm-up, and a command that marks fewer steps, still have a last step.
        last = max((row["step"] for row in whole), default=-1)
        for row in whole:
            if row["step"] >= min(first, last):
                found.setdefault(row["rank"], []).append(Step(row["step"], row["start"], row["end"]))
        return found

    @cached_property
    def window(self) -> Window:
        """The time that means and rates are of."""
        steps = [step for each in self.steps.values() for step in each]
        if steps:
            return Window(min(step.start for step in steps), max(step.end for step in steps), len({step.number for step in steps}))
        ends = [float(table["time"][-1].as_py()) for table in self.tables.values() if "time" in table.column_names and table.num_rows]
        return Window(0.0, max(ends, default=0.0), 0)

    def facts(self, what: str) -> dict[int, list[marks.Line]]:
        """Lines that say `what`, by rank; ranks without any are left out."""
        found = {rank: marks.facts(lines, what) for rank, lines in self.lines.items()}
        return {rank: lines for rank, lines in found.items() if lines}

    def seconds(self, t_ns: int) -> float:
        """A moment of the clock as s since the Run began."""
        return (t_ns - self.epoch_ns) / 1e9

    @cached_property
    def cards(self) -> list[Mapping[str, Any]]:
        """What the sampler says of each GPU that it sampled."""
        found: list[Mapping[str, Any]] = self.manifest.get("hardware", {}).get("gpus", [])
        return found

    @cached_property
    def gpu_of(self) -> dict[int, int]:
        """The number, in the table `gpu`, of the GPU that each rank used, where both sides name it."""
        known = {_plain(card["uuid"]): int(card["gpu"]) for card in self.cards if card.get("uuid")}
        said = {rank: _plain(lines[0]["uuid"]) for rank, lines in self.facts("rank").items() if lines[0].get("uuid")}
        return {rank: known[uuid] for rank, uuid in said.items() if uuid in known}

    @cached_property
    def gpus(self) -> list[int]:
        """Numbers, in the table `gpu`, of the GPUs that the ranks used: all that were sampled where the ranks do not say."""
        table = self.tables.get("gpu")
        sampled = sorted(set(table["gpu"].to_pylist())) if table is not None and table.num_rows else []
        return sorted(set(self.gpu_of.values())) or sampled

    def curve(self, table: str, name: str, of: int | None = None, inside: Window | None = None) -> tuple[Floats, Floats]:
        """Times and values of a curve where it could be read: of one GPU or of all together, of the whole Run or inside a window."""
        rows = self.tables.get(table)
        if rows is None or name not in rows.column_names or not rows.num_rows:
            return np.empty(0), np.empty(0)
        keep = pc.is_valid(rows[name])
        if of is not None:
            keep = pc.and_(keep, pc.equal(rows["gpu" if table == "gpu" else "node"], of))
        if inside is not None:
            keep = pc.and_(keep, pc.and_(pc.greater_equal(rows["time"], inside.start), pc.less_equal(rows["time"], inside.end)))
        kept = rows.filter(keep)
        return kept["time"].to_numpy(), kept[name].cast(pa.float64()).to_numpy()

    def means(self, table: str, name: str, of: int | None, inside: Window) -> tuple[Floats, Floats]:
        """Readings of a curve inside a window, and the time that each stands for, s.

        A reading that is itself a mean, between two snapshots, counts where both lie inside: one that began before the window tells of what
        was before it as well. Others count each tick once.
        """
        if self.origin(table, name)[0] not in MEANS_BETWEEN:
            _, values = self.curve(table, name, of, inside)
            return values, np.ones(len(values))
        return _inside(*self.curve(table, name, of), self._longest_wait(table, name, of), inside)

    def _longest_wait(self, table: str, name: str, of: int | None) -> float:
        """The longest time, s, for which the sensor of a curve was not asked again, as far as is known."""
        sensors = [
            each for each in self.manifest.get("sensors", []) if each["table"] == table and name in each["curves"] and of in (None, each["key"])
        ]
        asked = [float(told["asked_every_s"]) for each in sensors for told in (each, *each.get("changes", []))]
        return max([self.origin(table, name)[2] or 0.0, *asked])

    def origin(self, table: str, name: str) -> tuple[str, str, float | None]:
        """Tier, source in words and native period of a curve; empty where nobody says."""
        for row in self._origins:
            if (row["table"], row["curve"]) == (table, name):
                return str(row["tier"] or ""), str(row["source"] or ""), row["period"]
        return "", "", None

    def reason(self, table: str, name: str) -> str:
        """Why a curve has no values."""
        if self.unsampled:
            return self.unsampled
        for row in self._origins:
            if (row["table"], row["curve"]) == (table, name) and row["reason"]:
                return str(row["reason"])
        if table == "gpu" and not self.gpus:
            return "this machine has no GPU that can be sampled"
        return f"no sensor of this machine gave {table} {name} during the counted steps"

    @cached_property
    def _origins(self) -> list[dict[str, Any]]:
        table = self.tables.get("curves")
        return table.to_pylist() if table is not None else []


def _inside(times: Floats, values: Floats, period: float, window: Window) -> tuple[Floats, Floats]:
    """Of rows that repeat each mean until the next one: those means that are of `window` alone, and their lengths, s.

    `period`: the longest time, s, between two means: a value that stays for longer than that is several in turn, all alike.
    """
    new = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
    if not new.size:
        return np.empty(0), np.empty(0)
    means, ends = values[new], times[new]
    # Whether a value that stays was read anew, rows do not tell: only what has stayed for longer than any wait surely was.
    lasts = np.maximum(ends, np.append(times[new[1:] - 1], times[-1]) - period)
    begins = np.concatenate([ends[:1], lasts[:-1]])
    first = np.where((begins >= window.start) & (ends <= window.end), ends - begins, 0.0)
    later = np.maximum(np.minimum(lasts, window.end) - np.maximum(ends, window.start), 0.0)
    known = first + later > 0
    return means[known], (first + later)[known]


def exact(name: str, number: float, basis: str) -> Value:
    """A value that was counted or read, as it is."""
    return Value(float(number), quantity(name).unit, float(number), float(number), basis)


def spread(name: str, number: float, all_of: Floats, basis: str) -> Value:
    """A value among many of its kind; its band is where nine tenths of them lie."""
    low, high = np.percentile(all_of, [5, 95])
    return Value(float(number), quantity(name).unit, float(min(low, number)), float(max(high, number)), basis)


NO_STEPS: Final = "no whole step was marked"


def _plain(uuid: str) -> str:
    """The driver writes GPU-... before it, PyTorch does not."""
    return str(uuid).removeprefix("GPU-").lower()
