"""The table of agreement with the report as rows, as a table, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa

from membound import units
from membound.run.schema import Missing
from membound.study.claims import quantities
from membound.study.claims.agreement import Agreement
from membound.study.claims.stated import Claim
from membound.study.markdown import table as markdown_table

_TRUTHS: Final = frozenset({"fits-gpu", "fits-host", "order", "lowest", "lowest-of-like"})
_COLUMNS: Final = pa.schema(
    [
        (name, pa.string())
        for name in ("claim", "verdict", "kind", "quantity", "run", "against", "statement", "at", "note", "reason", "basis", "origin")
    ]
    + [(name, pa.float64()) for name in ("published", "published_low", "published_high", "tolerance", "ours", "ours_low", "ours_high", "ratio")]
    + [(name, pa.float64()) for name in ("distance", "spread_low", "spread_high")]
    + [("overlaps", pa.bool_()), ("settled_by", pa.list_(pa.string()))]
)


def table(agreements: Iterable[Agreement]) -> pa.Table:
    """One row for each claim, in the order given; values in SI units, ratios as ratios, null where there is none."""
    return pa.Table.from_pylist([row(each) for each in agreements], schema=_COLUMNS)


def row(each: Agreement) -> dict[str, Any]:
    """One claim as plain values; ends that the words leave open are null."""
    claim, ours, spread = each.claim, each.ours, each.spread
    there = not isinstance(ours, Missing)
    return {
        "claim": claim.id, "verdict": each.verdict, "kind": claim.kind, "quantity": claim.quantity, "run": claim.run,
        "against": " ".join(claim.against), "statement": claim.statement, "at": claim.at, "note": claim.note, "reason": each.reason,
        "origin": each.origin,
        "basis": ours.basis if not isinstance(ours, Missing) else None, "published": claim.value, "published_low": _finite(claim.low),
        "published_high": _finite(claim.high), "tolerance": claim.tolerance,
        "ours": ours.value if not isinstance(ours, Missing) else None, "ours_low": ours.low if not isinstance(ours, Missing) else None,
        "ours_high": ours.high if not isinstance(ours, Missing) else None, "ratio": each.ratio, "distance": each.distance if there else None,
        "spread_low": spread.low if spread else None, "spread_high": spread.high if spread else None, "overlaps": each.overlaps,
        "settled_by": list(each.settled_by),
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


HEAD: Final = ("claim", "the report says", "published", "ours", "over plausible settings", "verdict", "reason")


def markdown(agreements: Iterable[Agreement]) -> str:
    """The table for people."""
    return markdown_table(HEAD, map(cells, agreements))


def cells(each: Agreement) -> tuple[str, ...]:
    """One claim in words, under `HEAD`."""
    claim, ours = each.claim, each.ours
    shown = "missing" if isinstance(ours, Missing) else show(claim, ours.value)
    spread = f"{show(claim, each.spread.low)} .. {show(claim, each.spread.high)}" if each.spread else ""
    return claim.id, f"{claim.statement} ({claim.at})", published(claim), shown, spread, each.verdict, each.reason


def published(claim: Claim) -> str:
    """What the words allow: the number with its band, or the bound."""
    if claim.kind in _TRUTHS:
        return show(claim, claim.low)
    low, high = (show(claim, end) if math.isfinite(end) else "" for end in (claim.low, claim.high))
    band = f"{low} .. {high}" if low and high else f"at least {low}" if low else f"at most {high}"
    return band if claim.value is None else f"{show(claim, claim.value)} ({band})"


def show(claim: Claim, value: float) -> str:
    """`value` in the claim's unit."""
    if claim.kind in _TRUTHS:
        return "yes" if value else "no"
    if claim.kind == "ratio":
        return f"x {value:.3f}"
    return units.show(value, quantities.unit(claim.quantity))
