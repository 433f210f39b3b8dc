"""The sampler: a process of its own that asks the sensors on an absolute grid and writes rows into the ring. It imports no PyTorch, no numpy."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from membound.errors import MeasureError, MemboundError
from membound.measure import spawn
from membound.measure.account import Account
from membound.measure.control import Control, State
from membound.measure.doors import open_doors
from membound.measure.hold import Hold
from membound.measure.lanes import Clock, sleep_until
from membound.measure.ring import Ring
from membound.measure.rows import Feed, RowWriter
from membound.measure.sensors import columns
from membound.measure.sensors.offer import Offer, offer
from membound.measure.source import Source
from membound.measure.staff import Staff

# The ring holds so many seconds of rows: how long the drainer may be held up, by a disk or by being killed, before rows are lost.
_HELD: Final = 60.0
# ... and no more rows of all GPUs than this: some 40 MB of the 64 that a container has as a rule (Docker's default).
_MOST_ROWS: Final = 160_000
# Rows are written so far into their tick: by then the fast sensors have answered.
_WRITE_AT: Final = 0.75
# Ticks per host period where there is no GPU: nothing has to be written in between.
_WITHOUT_GPU: Final = 4
# A sensor that hangs at the end is not waited for longer, s.
_PATIENCE: Final = 0.2
# Nor is a driver that hangs, s.
_CLOSING: Final = 2.0


def main(arguments: Sequence[str]) -> None:
    """Sample until told to stop, or until the owner is gone. `arguments`: the recording's folder, where plan.json says the rest."""
    plan = json.loads((Path(arguments[0]) / "plan.json").read_text())
    shared = Path(plan["shared"])
    try:
        # Held until the end of the process.
        _hold, control = _join(shared)
        _Sampler(plan, control).run()
    except (MemboundError, LookupError) as error:
        # The last line of the log is what the owner tells its user.
        print(error.args[0] if isinstance(error, LookupError) else error, file=sys.stderr)
        sys.exit(1)
    # A sensor that hangs would hold up the interpreter's own way out.
    os._exit(0)


class _Sampler:
    """One recording's sampler, from its first breath to its last."""

    def __init__(self, plan: dict[str, Any], control: Control) -> None:
        self._plan = plan
        self._control = control
        self._owner = int(plan["owner"])
        _take_over(control)
        source = Source.of(plan["source"])
        self._offer = offer(open_doors(source), plan["gpus"], plan["period"], plan["host_period"], plan["hbm"])
        self._account = Account(control, plan, self._offer)
        self._staff = Staff()

    def run(self) -> None:
        """Get ready, wait for the moment 0, sample, end."""
        gpu_ring, host_ring = self._rings()
        self._account.learn()
        # What is here now stays: nothing to collect, and no pause for collecting.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._account.begin()
        while not (epoch := self._control.get("epoch_ns")) and not self._over():
            time.sleep(0.001)
        if epoch:
            self._sample(epoch, gpu_ring, host_ring)
        self._control.set("state", State.ENDED)
        # Performance monitors hold the clocks until they are closed; a driver that hangs is not waited for.
        closing = threading.Thread(target=self._offer.close, daemon=True)
        closing.start()
        closing.join(_CLOSING)

    def _rings(self) -> tuple[Ring | None, Ring]:
        shared, gpus = Path(self._plan["shared"]), len(self._offer.gpus)
        gpu = _ring(shared / "gpu", len(columns.GPU), min(_MOST_ROWS, gpus * int(_HELD / self._plan["period"] + 64))) if gpus else None
        return gpu, _ring(shared / "host", len(columns.HOST), int(_HELD / self._plan["host_period"]) + 64)

    def _sample(self, epoch: int, gpu_ring: Ring | None, host_ring: Ring) -> None:
        host_ns = int(self._plan["host_period"] * 1e9)
        host_clock = Clock(epoch, host_ns)
        clock = host_clock if gpu_ring is None else Clock(epoch, int(self._plan["period"] * 1e9))
        of_gpus, of_host = ([each for each in self._offer.chosen if each.sensor.card.table == table] for table in ("gpu", "host"))
        feeds, host_feeds = self._staff.hire(of_gpus, clock), self._staff.hire(of_host, host_clock)
        writers = [] if gpu_ring is None else [_writer(gpu_ring, gpu, "gpu", feeds, self._offer) for gpu in self._offer.gpus]
        self._staff.start()
        grid = clock if gpu_ring is not None else Clock(epoch, host_ns // _WITHOUT_GPU)
        self._loop(grid, writers, host_clock, _writer(host_ring, 0, "host", host_feeds, self._offer))
        self._staff.stop(_PATIENCE)
        self._account.tell(self._staff)

    def _loop(self, clock: Clock, writers: Sequence[RowWriter], host_clock: Clock, host: RowWriter) -> None:
        offset = int(_WRITE_AT * clock.period_ns)
        # A host row waits for a tenth of its period: its sensors are not asked at the very moment.
        host_offset = max(offset, host_clock.period_ns // 10)
        tick = max(0, clock.next() - 1)
        host_tick = max(0, host_clock.next() - 1)
        while not self._over():
            sleep_until(clock.at(tick) + offset)
            now = time.monotonic_ns()
            for writer in writers:
                writer.write(tick, clock.at(tick), now)
            if now >= host_clock.at(host_tick) + host_offset:
                host.write(host_tick, host_clock.at(host_tick), now)
                host_tick = max(host_tick + 1, host_clock.next() - 1)
            self._account.maybe_tell(now, self._staff)
            self._staff.mind()
            following = max(tick + 1, (time.monotonic_ns() - offset - clock.epoch_ns) // clock.period_ns + 1)
            self._account.missed += following - tick - 1
            tick = following

    def _over(self) -> bool:
        return bool(self._control.get("stop")) or os.getppid() != self._owner


def _join(shared: Path) -> tuple[Hold, Control]:
    try:
        return Hold.with_others(shared), Control.open(shared)
    except OSError as error:
        raise MeasureError(f"{shared}: swept up before the sampler came to it: {error.strerror}") from None


def _take_over(control: Control) -> None:
    """A process that takes the place of one that was killed goes on with its account."""
    control.set("cpu_before_ns", control.get("cpu_before_ns") + control.get("cpu_ns"))
    control.set("cpu_ns", 0)
    control.set("sampler_pid", os.getpid())


def _ring(path: Path, curves: int, capacity: int) -> Ring:
    try:
        return Ring(path) if path.exists() else Ring.create(path, curves, capacity)
    except OSError as error:
        raise spawn.memory_error(error, path.parent.parent) from None


def _writer(ring: Ring, key: int, table: str, feeds: Sequence[Feed], found: Offer) -> RowWriter:
    gaps = {curve: gap.validity for gap in found.gaps if gap.table == table and gap.key in {key, None} for curve in gap.curves}
    mine = [feed for feed in feeds if feed.station.sensor.card.key == key]
    return RowWriter(ring, key, columns.TABLES[table], mine, gaps)
