"""One life of a measured sweep, as a process of its own that a test kills: `python life.py MACHINE STATE SECONDS [fork]`.

Switches the simulated machine's GPUs to their lower memory clock, measures for SECONDS, gives the clocks back, and again holding the core clock. With
`fork`, each measurement leaves a forked child behind, which has every descriptor of its parent. SECONDS below 0:
until standard input ends.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from membound.measure.clocks import simulated_board as board
from membound.measure.clocks.consent import Consent
from membound.measure.clocks.session import Session, Timing
from membound.measure.clocks.simulated import SimulatedDriver


def main(machine: Path, state: Path, seconds: float, forks: bool) -> None:
    """Live."""
    # As in a terminal: under nohup a hangup is ignored by all that it starts, and an interrupt is in whatever a shell's script starts with `&`.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextmanager
    def load(uuids: Sequence[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for uuid in uuids:
                stack.enter_context(board.loaded(machine, uuid))
            yield

    def measure() -> None:
        if forks and os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        if seconds < 0:
            sys.stdin.read()
        else:
            time.sleep(seconds)

    driver = SimulatedDriver(machine)
    uuids = [gpu.uuid for gpu in driver.gpus()]
    consent = Consent.from_options(True, "machine.gpu.hbm.clock=1593MHz")
    with Session(driver, uuids, load, consent, state, Timing(settle=0.0, period=0.01, look=0.001)) as session:
        session.point(1_593_000_000, measure)
        session.point(1_593_000_000, measure, core=1_410_000_000)
    print("lived")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:] == ["fork"])
