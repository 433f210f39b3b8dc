"""`membound study validation`: what others measured and published, and what we measured ourselves, beside prediction."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from membound.cli import output
from membound.errors import UnknownNameError

if TYPE_CHECKING:
    from membound.study.predicting import Predictor
    from membound.study.validation.memory.result import Result
    from membound.study.validation.speed.result import SpeedResult

PARTS: Final = ("memory", "speed", "measured")


@dataclass(frozen=True)
class Records:
    """Where our own measurements lie."""

    measured: Path
    """Folder of peaks that were measured alone."""
    machine: str
    """The machine that they are of, by its catalogue name."""
    own: list[Path]
    """Folders of whole measured Runs, one for each machine."""


def run(predictor: Predictor, groups: list[str], only: str | None, records: Records, out: Path | None, as_json: bool) -> None:
    """Compare the rows of `groups`, of all if there are none; `only` one of `PARTS`, if given. Raises `UnknownNameError`, `StorageError`."""
    if only == "measured":
        _own_runs(predictor, records.own, out, as_json)
        return
    from membound.study.validation.memory import page as memory_page
    from membound.study.validation.memory import result as memory_result
    from membound.study.validation.speed import page as speed_page
    from membound.study.validation.speed import result as speed_result

    memory_groups, speed_groups = _groups(groups, only)
    memory = None if memory_groups is None else _memory(predictor, memory_groups, records)
    if out is not None and memory is not None:
        memory_result.write(memory, out, memory_page.page(memory))
    speed = None if speed_groups is None else _speed(predictor, speed_groups)
    if out is not None and speed is not None:
        speed_result.write(speed, out / "speed", speed_page.page(speed))
    _show(memory, speed, out, as_json)


def _own_runs(predictor: Predictor, folders: list[Path], out: Path | None, as_json: bool) -> None:
    from membound.study.validation.own_runs import comparison, page

    found = [run for folder in folders for run in comparison.compare(folder, predictor, _say)]
    text = page.page(found)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "validation-measured.md").write_text(text, encoding="utf-8")
    if as_json:
        output.write_json({"schema": 1, "runs": [dataclasses.asdict(run) for run in found]})
        return
    output.write(text if out is None else f"written to {out / 'validation-measured.md'}\n")


def _show(memory: Result | None, speed: SpeedResult | None, out: Path | None, as_json: bool) -> None:
    from membound.study.validation.memory import result as memory_result
    from membound.study.validation.speed import result as speed_result

    if as_json:
        document = memory_result.document(memory) if memory is not None else {"schema": memory_result.SCHEMA}
        output.write_json(document if speed is None else {**document, "speed": speed_result.document(speed)})
        return
    from membound.cli import speed_tables, study_tables

    if memory is not None:
        output.show(study_tables.validation(memory))
    if speed is not None:
        output.show(speed_tables.speed(speed))
    if out is not None:
        output.write(f"\nwritten to {out}\n")


def _memory(predictor: Predictor, groups: list[str], records: Records) -> Result:
    from membound.study.validation.memory import measured
    from membound.study.validation.memory.comparison import Comparison, outcomes
    from membound.study.validation.memory.result import Result

    comparison = Comparison(predictor, _say)
    done = comparison.compare(outcomes(groups))
    own = [] if groups else measured.compare(records.measured, records.machine, predictor, _say)
    return Result(tuple(done), comparison.versions, tuple(own))


def _speed(predictor: Predictor, groups: list[str]) -> SpeedResult:
    from membound.study.validation.speed import rows
    from membound.study.validation.speed.comparison import SpeedComparison, outcomes
    from membound.study.validation.speed.result import SpeedResult
    from membound.study.validation.speed.statistics import repeats

    comparison = SpeedComparison(predictor, _say)
    done = comparison.compare(outcomes(groups))
    return SpeedResult(tuple(done), comparison.versions, tuple(repeats(rows.read())))


def _groups(asked: list[str], only: str | None) -> tuple[list[str] | None, list[str] | None]:
    """The groups of memory and of speed to compare: none named is all of them; None where that part is not to run."""
    from membound.study.validation.memory.outcome import GROUPS
    from membound.study.validation.speed.outcome import GROUPS as SPEED_GROUPS

    if only is not None and only not in PARTS:
        raise UnknownNameError("--only", only, PARTS)
    known = {part: groups for part, groups in zip(("memory", "speed"), (GROUPS, SPEED_GROUPS), strict=True) if only in {None, part}}
    for name in asked:
        if not any(name in groups for groups in known.values()):
            raise UnknownNameError("--group", name, set().union(*known.values()))
    wanted = {part: [name for name in asked if name in groups] for part, groups in known.items()}
    kept = {part: names for part, names in wanted.items() if names or not asked}
    return kept.get("memory"), kept.get("speed")


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
