"""A process that prices machines: `python -m membound.study.sweep.worker`, started by `workers`, which alone speaks with it.

Standard input: one pickle of a Replayer and its machines. Standard output: a pickle for each batch, in order.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from membound.errors import InputError
from membound.replay.side_by_side import on_each
from membound.replay.time import Replayer
from membound.spec.machine import Machine
from membound.study.sweep import values
from membound.study.sweep.values import Priced

# Machines between two words of progress: about a second of work, and some 300 MB of what flows when.
_BATCH: Final = 32


def batches(replayer: Replayer, machines: Sequence[Machine]) -> Iterator[list[Priced | str]]:
    """What each machine makes of the program, or why it cannot, some machines at a time."""
    for first in range(0, len(machines), _BATCH):
        some = machines[first : first + _BATCH]
        both = zip(on_each(replayer, some), some, strict=True)
        yield [str(played) if isinstance(played, InputError) else values.of(played, machine) for played, machine in both]


def main() -> None:
    """Answer the one request of standard input."""
    replayer, machines = pickle.load(sys.stdin.buffer)
    for batch in batches(replayer, machines):
        pickle.dump(batch, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
