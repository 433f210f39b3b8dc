"""From readings to rows: one row per GPU and tick, one per node and second, each value with its validity and whether it is new."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from membound.measure.lanes import Station
from membound.measure.ring import NOT_READ, Ring
from membound.measure.sensors.base import Validity

# A sensor that has not answered for so many of its own periods, or ticks, does not stand for now any more.
_STALE_PERIODS: Final = 3
_STALE_TICKS: Final = 5


class Feed:
    """One sensor's share of a row: which of its answers go into which columns."""

    def __init__(self, station: Station, curves: Sequence[str], columns: Sequence[str], grid_ns: int) -> None:
        card = station.sensor.card
        self.station = station
        self.pairs = [(card.curves.index(curve), columns.index(curve)) for curve in curves]
        self.window = card.window
        self.seen = 0
        self._grid_ns = grid_ns
        self.stale = False

    @property
    def stale_ns(self) -> int:
        """How old the last answer may be, ns: it may be asked less often by now than it was."""
        return max(_STALE_PERIODS * int(self.station.sensor.card.every * 1e9), _STALE_TICKS * self._grid_ns)


class RowWriter:
    """Writes the rows of one GPU or node. What no sensor gives is null, with the code that says why."""

    def __init__(self, ring: Ring, key: int, columns: Sequence[str], feeds: Sequence[Feed], gaps: dict[str, Validity]) -> None:
        self._ring = ring
        self._key = key
        self._feeds = feeds
        self._values = [math.nan] * len(columns)
        given = {slot for feed in feeds for _, slot in feed.pairs}
        self._codes = [
            int(Validity.STALE) if slot in given else int(gaps.get(column, Validity.ABSENT)) for slot, column in enumerate(columns)
        ]  # fmt: skip
        # The first sensor that is asked at every tick stands for the row's time.
        self._timer = next((feed.station for feed in feeds if not feed.station.sensor.card.slow), None)

    def write(self, tick: int, tick_ns: int, now_ns: int) -> None:
        """The row of `tick`, from what the sensors last answered."""
        fresh = 0
        for feed in self._feeds:
            fresh |= self._take(feed, now_ns)
        late, took = self._times(tick, tick_ns)
        self._ring.write(tick, late, took, self._key, fresh, self._values, self._codes)

    def _take(self, feed: Feed, now_ns: int) -> int:
        last = feed.station.last
        if last is None:
            return 0
        if last.serial == feed.seen:
            if not feed.stale and now_ns - last.start_ns > feed.stale_ns:
                self._forget(feed)
            return 0
        feed.seen, feed.stale = last.serial, False
        values, codes, fresh = self._values, self._codes, 0
        for place, slot in feed.pairs:
            value, code = last.answers[place]
            if feed.window or value != values[slot] or code != codes[slot]:
                # Not a number differs from itself: without a value nothing is new.
                fresh |= (code == 0) << slot
                values[slot], codes[slot] = value, code
        return fresh

    def _forget(self, feed: Feed) -> None:
        feed.stale = True
        for _, slot in feed.pairs:
            self._values[slot], self._codes[slot] = math.nan, int(Validity.STALE)

    def _times(self, tick: int, tick_ns: int) -> tuple[int, int]:
        last = None if self._timer is None else self._timer.last
        if last is None or last.tick != tick:
            return NOT_READ, NOT_READ
        # µs in 32 bits: more than half an hour.
        return min((last.start_ns - tick_ns) // 1000, 2**31 - 1), min((last.end_ns - last.start_ns) // 1000, 2**31 - 1)
