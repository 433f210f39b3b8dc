"""The sensors' part of `membound doctor`: each curve with its tier, source and period, or with what is missing and its cure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from membound import units


def lines(found: dict[str, Any]) -> Iterator[str]:
    """`found` is what `membound.measure.examine` says."""
    yield from _machine(found["hardware"])
    for table, title in (("gpu", "GPU sensors"), ("host", "host sensors")):
        rows = _alike([row for row in found["curves"] if row["table"] == table])
        yield title
        yield from (_given(row) for row in rows if "missing" not in row)
        yield from _missing([row for row in rows if "missing" in row])


def _machine(hardware: dict[str, Any]) -> Iterator[str]:
    host = hardware["host"]
    memory = "" if host["memory_b"] is None else f", {units.show(host['memory_b'], 'B')}"
    yield "machine"
    yield f"  {host['processor'] or 'processor not told'}, {host['cores'] or '?'} cores{memory}"
    yield f"  DIMMs: {_dimms(host)}"
    for gpu in hardware["gpus"]:
        clocks = ", ".join(f"{clock} MHz" for clock in gpu["supported_memory_clocks_mhz"] or [])
        yield f"  GPU {gpu['gpu']}: {gpu['name']}, driver {hardware['driver']}; memory clocks {clocks or 'not told'}"


def _dimms(host: dict[str, Any]) -> str:
    if host["dimms"] is None:
        return f"not known: {host['dimms_missing']}"
    modules = [f"{units.show(dimm['nbytes'], 'B')} {dimm['kind'] or ''} at {(dimm['set_rate'] or 0) / 1e6:.0f} MT/s" for dimm in host["dimms"]]
    return ", ".join(f"{modules.count(module)} x {module}" for module in dict.fromkeys(modules)) or "none in their slots"


def _alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the first device, where the others are like it; with the device's number where they are not."""
    first = rows[0]["key"] if rows else None
    told = {(row["curve"], row.get("source"), row.get("missing")) for row in rows if row["key"] == first}
    return [row for row in rows if row["key"] == first or (row["curve"], row.get("source"), row.get("missing")) not in told]


def _given(row: dict[str, Any]) -> str:
    period = "read through" if row["period_s"] is None else f"new every {_time(row['period_s'])}"
    return f"  {_name(row):20}{row['tier']:10}{period:20}asked every {_time(row['asked_every_s']):8}{row['cost_us']:6.0f} us  {row['source']}"


def _missing(rows: list[dict[str, Any]]) -> Iterator[str]:
    reasons = dict.fromkeys((row["missing"], row["remedy"]) for row in rows)
    for reason, remedy in reasons:
        curves = ", ".join(_name(row) for row in rows if (row["missing"], row["remedy"]) == (reason, remedy))
        yield f"  not to be had: {curves}"
        yield f"      why:  {reason}"
        if remedy:
            yield f"      cure: {remedy}"


def _name(row: dict[str, Any]) -> str:
    return row["curve"] if not row["key"] else f"{row['curve']} ({row['key']})"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
