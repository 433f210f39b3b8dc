"""How a measurement ended, read off what lies in its folder: done, out of memory, failed, stopped, killed, or still running."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from membound.measure import marks
from membound.measure.place import Place, read_json
from membound.measure.plan import Plan
from membound.run.schema import Fits

How = Literal["done", "gpu-memory", "host-memory", "failed", "stopped", "timed-out", "killed", "running"]


@dataclass(frozen=True)
class Outcome:
    """The end of a measurement."""

    how: How
    fits: Fits
    said: str
    """One sentence."""
    status: int | None = None
    """Exit status of the job or command; None where nobody saw it."""
    asked: int | None = None
    """The signal that asked for the end; None where none did."""

    @property
    def answered(self) -> bool:
        """Whether what was asked is answered: out of memory is an answer, a failure is none."""
        return self.how in {"done", "gpu-memory", "host-memory"}


def of(place: Place, plan: Plan) -> Outcome:
    """The outcome of what lies in `place`."""
    if not place.ended.is_file():
        return _unseen(place, plan)
    ended = read_json(place.ended)
    status = int(ended["status"])
    if ended["asked"] is not None:
        asked = int(ended["asked"])
        return dataclasses.replace(_unfitting("stopped", f"stopped by {_name(asked)}", status), asked=asked)
    if ended["timed_out"]:
        return _unfitting("timed-out", f"ended after its time limit of {plan.options.time_limit:g} s", status)
    if status == 0 and not place.failures():
        return Outcome("done", Fits(True, True), "done", status)
    return _failed(place, ended, status)


def _unseen(place: Place, plan: Plan) -> Outcome:
    """Nobody wrote the end down."""
    if plan.alive():
        return _unfitting("running", "still running", None)
    failures = place.failures()
    if failures:
        return _of_failure(failures[0], None)
    done = plan.command is None and all(marks.facts(lines, "done") for lines in marks.read(place.marks).values())
    where = "after the last step" if done and any(place.marks.iterdir()) else "before its end"
    return _unfitting("killed", f"membound itself was killed {where}: what follows is what it had written down", None)


def _failed(place: Place, ended: Mapping[str, Any], status: int) -> Outcome:
    failures = place.failures()
    if failures:
        return _of_failure(failures[0], status)
    kills, before = ended.get("kernel_kills"), ended.get("kernel_kills_before")
    if kills is not None and before is not None and kills > before:
        why = "the kernel killed a process: the host had no memory left"
        return Outcome("host-memory", Fits(True, False, why), why, status)
    words = _last_words(place)
    how = f"killed by {_name(-status)}" if status < 0 else f"ended with exit status {status}"
    return _unfitting("failed", f"{how}{f': {words}' if words else ''}", status)


def _of_failure(failure: Mapping[str, Any], status: int | None) -> Outcome:
    text = _first_sentences(str(failure["text"]))
    where = _where(failure)
    match failure["kind"]:
        case "gpu-memory":
            why = f"rank {failure['rank']} ran out of GPU memory {where}: {text}"
            return Outcome("gpu-memory", Fits(False, True, why), why, status)
        case "host-memory":
            why = f"rank {failure['rank']} ran out of host memory {where}: {_tried(text)}"
            return Outcome("host-memory", Fits(True, False, why), why, status)
        case "refused":
            return _unfitting("failed", text, status)
    return _unfitting("failed", f"rank {failure['rank']} failed {where}: {failure['type']}: {text}", status)


def _unfitting(how: How, said: str, status: int | None) -> Outcome:
    # Nothing ran out of memory; whether the rest would have fitted, nobody saw.
    return Outcome(how, Fits(True, True, f"as far as it came: {said}"), said, status)


def _where(failure: Mapping[str, Any]) -> str:
    step, micro = int(failure["step"]), int(failure["micro"])
    if step < 0:
        return f"in phase {failure['phase']}"
    return f"in {failure['phase']} of step {step}" + (f", micro-step {micro}" if micro >= 0 else "")


def _first_sentences(text: str, limit: int = 240) -> str:
    """As much of an error's text as says what happened: PyTorch adds advice of its own after it."""
    line = " ".join(text.split())
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", line)
    kept = sentences[0]
    for sentence in sentences[1:3]:
        if len(kept) + len(sentence) < limit:
            kept += f" {sentence}"
    return kept[:limit]


def _tried(text: str) -> str:
    """What the host's allocator was asked for, where it says; around it stand lines of its source."""
    found = re.search(r"tried to allocate [\d.]+ ?\w+", text)
    return f"it {found[0]}" if found else text


def _last_words(place: Place) -> str:
    # Launchers rule off their reports with lines of signs.
    return next((line.strip()[:240] for line in reversed(place.tail()) if any(sign.isalpha() for sign in line)), "")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
