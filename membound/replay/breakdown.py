"""Says in words where in the program an instruction stands, and what is alive at a moment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from membound.replay.memory_program import ALLOC, FREE, MemoryProgram
from membound.replay.result import Holding, Moment
from membound.trace.schema import CATEGORIES, PHASES, Trace

NOWHERE = Moment(-1, "other", -1, -1, "", "", "")


def moment(trace: Trace, row: int) -> Moment:
    """Where instruction `row` stands."""
    if not 0 <= row < len(trace):
        return NOWHERE
    rows, header = trace.instructions, trace.header
    step, micro = int(rows["step"][row]), int(rows["micro"][row])
    begun = step < 0 and bool((rows["step"][:row] >= 0).any())
    # Between the phases of a step the recorder is back at its first phase.
    phase = "other" if begun else PHASES[rows["phase"][row]]
    return Moment(row, phase, step, micro, header.modules[rows["module"][row]], header.lines[rows["line"][row]], header.ops[rows["op"][row]])


def words(at: Moment) -> str:
    """A moment as part of a sentence, counted from 1: 'in backward of step 1, micro-step 2, in model.layers.3, at modeling_llama.py:66'."""
    text = "between phases" if at.phase == "other" else f"in {at.phase}"
    if at.step >= 0:
        text += f" of step {at.step + 1}, micro-step {at.micro + 1}"
    if at.module:
        text += f", in {at.module}"
    if at.line:
        text += f", at {at.line}"
    return text


def alive(part: MemoryProgram, event: int) -> npt.NDArray[np.int64]:
    """The events up to `event` whose allocations are alive after it, in order."""
    if not 0 <= event < len(part):
        return np.empty(0, np.int64)
    action, target = part.action[: event + 1], part.target[: event + 1]
    births = np.flatnonzero(action == ALLOC)
    held: npt.NDArray[np.int64] = births[~np.isin(target[births], target[action == FREE])]
    return held


def holdings(trace: Trace, part: MemoryProgram, event: int, sizes: npt.NDArray[np.int64]) -> tuple[Holding, ...]:
    """What is alive after `event`, by category, module and line, largest first. `sizes` are bytes by event."""
    births = alive(part, event)
    blocks = part.target[births]
    origin, category = part.origin[blocks], part.category[blocks]
    ours = origin < 0
    storage = np.maximum(origin, 0)
    storages = trace.storages
    # A workspace is no module's.
    module = np.where(ours, 0, storages["module"][storage]) if len(storages["module"]) else np.zeros(len(births), np.int64)
    line = np.where(ours, 0, storages["line"][storage]) if len(storages["line"]) else np.zeros(len(births), np.int64)
    keys, which, counts = np.unique(np.stack([category, module, line]), axis=1, return_inverse=True, return_counts=True)
    nbytes = np.bincount(which.ravel(), weights=sizes[births], minlength=len(counts)).astype(np.int64)
    header = trace.header
    found = [
        Holding(CATEGORIES[keys[0, i]], header.modules[keys[1, i]], header.lines[keys[2, i]], int(nbytes[i]), int(counts[i]))
        for i in np.argsort(-nbytes, kind="stable")
    ]
    return tuple(found)
