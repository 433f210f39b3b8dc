"""When each knot of a program is reached on a machine: one turn for each, for all row lengths, and all machines of a sweep, at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from membound.replay.back_to_back import START
from membound.replay.copy_engine import CopyEngine
from membound.replay.knots import AFTER_ONE, AFTER_TWO, COPY_TO_GPU, HOST_WORK, ITEMS_AFTER_ONE, ITEMS_AFTER_TWO, LOOK, Knots

Floats = npt.NDArray[np.float64]


def walk(knots: Knots, stay: Floats, launch: Floats) -> tuple[Floats, Floats]:
    """The moments of the knots, s since the step began, and by how much copies had to wait for each other; [N, K] and [copies, K].

    Args: `stay` and `launch` as `membound.replay.back_to_back.Between` has them.
    """
    moments = np.empty(stay.shape)
    moments[0] = 0.0
    # Views of the rows, made once, and results put where they belong: the loop does little else.
    at, stays, free = list(moments), list(stay), np.empty(stay.shape[1])
    to_gpu, to_host, waited = CopyEngine(), CopyEngine(), []
    add, latest = np.add, np.maximum
    for base, first, after, turns in knots.turns:
        # What launches alone would make of them; the loop adds what else they wait for.
        add(launch[first:after], at[base], out=moments[first:after])
        for turn, knot, before, other in turns:
            here = at[knot]
            if turn == ITEMS_AFTER_ONE:
                add(at[before], stays[knot], out=free)
                latest(free, here, out=here)
            elif turn == ITEMS_AFTER_TWO:
                latest(at[before], at[other], out=free)
                add(free, stays[knot], out=free)
                latest(free, here, out=here)
            elif turn == AFTER_ONE:
                latest(at[before], here, out=here)
            elif turn == AFTER_TWO:
                latest(at[before], here, out=here)
                latest(at[other], here, out=here)
            elif turn == LOOK:
                # The item that must have begun is the other knot's last one; the stream's own history says why.
                np.subtract(at[other], stays[knot], out=free)
                np.minimum(free, at[before], out=free)
                latest(free, here, out=here)
            elif turn != HOST_WORK:
                engine = to_gpu if turn == COPY_TO_GPU else to_host
                ready = latest(latest(at[before], at[other]), here)
                begin, here[:] = engine.take(here - START, ready, stays[knot])
                waited.append(begin - ready)
    return moments, np.array(waited).reshape(-1, len(free))
