"""What a machine can measure: each curve with its sensor, or with what is missing and its cure. Nothing is recorded, no setting changed."""

from __future__ import annotations

from typing import Any, Final

from membound.measure.doors import open_doors
from membound.measure.learn import Learned, learn
from membound.measure.rates import Rates
from membound.measure.sensors import columns, readiness
from membound.measure.sensors.base import Gap
from membound.measure.sensors.offer import Chosen, Offer, offer
from membound.measure.sensors.pm import CURVES as COUNTED
from membound.measure.source import Source

# The usual grids, s: those of `membound.run.series`, which would load Arrow.
_PERIOD: Final = 0.02
_HOST_PERIOD: Final = 1.0


def examine(source: Source, learn_s: float = 1.0) -> dict[str, Any]:
    """`hardware`, and per curve and device a row in `curves`; native periods are watched for `learn_s`. Raises as `open_doors`."""
    doors = open_doors(source)
    found = offer(doors, None, _PERIOD, _HOST_PERIOD, "auto")
    try:
        learned = learn([each.sensor for each in found.chosen], learn_s)
        Rates(found.chosen, _PERIOD, _HOST_PERIOD).set([each.core for each in learned], 0.0)
        obstacle, cure = readiness.counting(doors.files)
        return {"hardware": found.hardware, "curves": _rows(found, learned, obstacle, cure)}
    finally:
        found.close()


def _rows(found: Offer, learned: list[Learned], obstacle: str, cure: str) -> list[dict[str, Any]]:
    given: dict[tuple[str, int | None, str], dict[str, Any]] = {
        (each.sensor.card.table, each.sensor.card.key, curve): _given(each, curve, known)
        for each, known in zip(found.chosen, learned, strict=True)
        for curve in each.curves
    }
    gpus: tuple[int | None, ...] = found.gpus or (None,)
    places: list[tuple[str, int | None, str]] = [("gpu", gpu, curve) for gpu in gpus for curve in columns.GPU]
    places += [("host", 0, curve) for curve in columns.HOST]
    return [given.get(place) or _missing(place, found.gaps, obstacle, cure) for place in places]


def _given(chosen: Chosen, curve: str, known: Learned) -> dict[str, Any]:
    card = chosen.sensor.card
    period = known.periods[curve]
    return {
        "table": card.table, "key": card.key, "curve": curve, "tier": card.tier, "source": card.source, "asked_every_s": card.every,
        "period_s": card.documented(curve) if period is None else period, "period_learned": period is not None, "cost_us": known.cost * 1e6,
    }  # fmt: skip


def _missing(place: tuple[str, int | None, str], gaps: tuple[Gap, ...], obstacle: str, cure: str) -> dict[str, Any]:
    table, key, curve = place
    mine = [gap for gap in gaps if gap.table == table and gap.key in {key, None} and curve in gap.curves]
    reasons, cures = [gap.reason for gap in mine], [gap.remedy for gap in mine]
    if table == "gpu" and key is not None and curve in COUNTED:
        reasons.append(obstacle)
        cures.append(cure)
    row = {"table": table, "key": key, "curve": curve, "validity": mine[0].validity.name.lower() if mine else "absent"}
    return row | {"missing": "; ".join(filter(None, reasons)) or "no sensor gives this here", "remedy": "; ".join(filter(None, cures))}
