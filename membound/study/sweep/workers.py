"""Many machines priced by several processes, where there are enough of them to be worth their start.

They are started by name rather than forked or re-imported: whoever calls this may have threads, or a script without a main guard.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any, Final

from membound import processors
from membound.errors import MemboundError
from membound.replay.time import Replayer
from membound.spec.machine import Machine
from membound.study.sweep.values import Priced
from membound.study.sweep.worker import batches

# Machines below which one process is as quick: a start takes about a second, and a machine some 30 ms (`benchmarks/sweep.py`).
_WORTH: Final = 48
# Processes at most: each holds the program and a batch's replay, some 300 MB.
_MOST: Final = 16

Heard = Callable[[int], None]


def price(replayer: Replayer, machines: Sequence[Machine], heard: Heard, processes: int | None = None) -> list[Priced | str]:
    """What each of `machines` makes of the program, or why it cannot, in their order. `heard` is told how many more are done.

    `processes`: how many to use at most; None: one per processor that this process may run on.
    """
    # Machines that differ in nothing that time hangs on are priced once.
    alike: dict[str, int] = {}
    which = [alike.setdefault(time_key(machine), number) for number, machine in enumerate(machines)]
    chosen = [machine for number, machine in enumerate(machines) if which[number] == number]
    found = dict(zip(alike.values(), _priced(replayer, chosen, heard, processes), strict=True))
    heard(len(machines) - len(chosen))
    return [found[number] for number in which]


def time_key(machine: Machine) -> str:
    """What a step's time, traffic and power depend on: all of a machine but how much its HBM holds, which decides whether a Job fits
    (`membound.study.sweep.predicting`), not how fast it runs."""
    return machine.model_dump_json(exclude={"gpu": {"hbm": {"capacity", "source"}}})


def _priced(replayer: Replayer, machines: Sequence[Machine], heard: Heard, processes: int | None) -> list[Priced | str]:
    allowed = processes or min(processors.usable(), _MOST)
    count = min(allowed, -(-len(machines) // _WORTH))
    if count < 2:
        return list(_here(replayer, machines, heard))
    # Neighbours of the grid are alike in cost: dealt out in turns, every process gets as much to do.
    shares = [machines[number::count] for number in range(count)]
    found: list[Priced | str] = [""] * len(machines)
    with ThreadPoolExecutor(count) as pool, ExitStack() as stack:
        workers = [stack.enter_context(_worker()) for _ in shares]
        answers = [pool.submit(_answer, worker, replayer, share, heard) for worker, share in zip(workers, shares, strict=True)]
        for number, answer in enumerate(answers):
            found[number::count] = answer.result()
    return found


def _here(replayer: Replayer, machines: Sequence[Machine], heard: Heard) -> Iterator[Priced | str]:
    for batch in batches(replayer, machines):
        heard(len(batch))
        yield from batch


@contextmanager
def _worker() -> Iterator[subprocess.Popen[bytes]]:
    """A worker, which is gone when the block ends, however it ends."""
    # Each works alone on its core, and hears of no interrupt but from us.
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "membound.study.sweep.worker"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=alone, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for end in (process.stdin, process.stdout):
            # What a killed process did not read cannot be flushed.
            with suppress(OSError):
                _there(end).close()


def _answer(worker: subprocess.Popen[bytes], replayer: Replayer, machines: Sequence[Machine], heard: Heard) -> list[Priced | str]:
    found: list[Priced | str] = []
    try:
        pickle.dump((replayer, list(machines)), _there(worker.stdin))
        _there(worker.stdin).close()
        while len(found) < len(machines):
            batch = pickle.load(_there(worker.stdout))
            heard(len(batch))
            found += batch
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        raise MemboundError(
            f"a process of this sweep ended before its work did, with status {worker.wait()}: where memory is short, ask for fewer points at a time"
        ) from None
    return found


def _there(end: IO[bytes] | None) -> IO[Any]:
    assert end is not None
    return end
