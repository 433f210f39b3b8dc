"""What our Runs say to a claim: the number that it is about, or 1 and 0 for whether it holds."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping
from typing import Final

from membound.run.schema import Missing, Run, Value
from membound.study.claims import quantities
from membound.study.claims.stated import Claim, Kind

_LIKE: Final = 0.10
"""HBM use within this much is comparable: 10 points."""
_USE: Final = "hbm.utilisation.mean"


def evaluate(claim: Claim, runs: Mapping[str, Run]) -> Value | Missing:
    """Ours to `claim`, from `runs` by the report's ids; missing, with the reason, where a run or its quantity is."""
    absent = [name for name in claim.runs if name not in runs]
    if absent:
        return Missing(f"not run: {', '.join(absent)}")
    return _KINDS[claim.kind](claim, runs)


def _value(claim: Claim, runs: Mapping[str, Run]) -> Value | Missing:
    return quantities.read(runs[claim.run], claim.quantity)


def _fits_gpu(claim: Claim, runs: Mapping[str, Run]) -> Value | Missing:
    return _truth(runs[claim.run].fits.gpu)


def _fits_host(claim: Claim, runs: Mapping[str, Run]) -> Value | Missing:
    return _truth(runs[claim.run].fits.host)


def _ratio(claim: Claim, runs: Mapping[str, Run]) -> Value | Missing:
    over, under = (quantities.read(runs[name], claim.quantity) for name in claim.runs)
    if isinstance(over, Missing):
        return over
    if isinstance(under, Missing):
        return under
    if under.value == 0:
        return Missing(f"{claim.quantity} of {claim.against[0]} is 0")
    value = over.value / under.value
    basis = f"{claim.quantity}: {over.value:g} over {under.value:g}"
    # A law's error is shared by both Runs and cancels where nothing changes between them: what is left grows with the effect itself.
    half = abs(value - 1) * (_width(over) + _width(under)) + value * abs(_width(over) - _width(under))
    return Value(value, "", max(value - half, 0.0), value + half, basis)


def _width(value: Value) -> float:
    return (value.high - value.low) / 2 / abs(value.value) if value.value else 0.0


def _order(claim: Claim, runs: Mapping[str, Run]) -> Value | Missing:
    numbers = _numbers(claim, runs)
    if isinstance(numbers, Missing):
        return numbers
    # Equal is no order: what the report measured apart must differ in ours as well.
    return _truth(all(first < second for first, second in itertools.pairwise(numbers)), numbers)


def _lowest(claim: Claim, runs: Mapping[str, Run]) -> Value | Missing:
    numbers = _numbers(claim, runs)
    return numbers if isinstance(numbers, Missing) else _truth(all(numbers[0] < other for other in numbers[1:]), numbers)


def _lowest_of_like(claim: Claim, runs: Mapping[str, Run]) -> Value | Missing:
    numbers, use = _numbers(claim, runs), _numbers(claim, runs, _USE)
    if isinstance(numbers, Missing):
        return numbers
    if isinstance(use, Missing):
        return use
    like = [number for number, used in zip(numbers[1:], use[1:], strict=True) if abs(used - use[0]) <= _LIKE]
    return _truth(all(numbers[0] < other for other in like), [numbers[0], *like]) if like else Missing("no other run has a comparable HBM use")


def _median(claim: Claim, runs: Mapping[str, Run]) -> Value | Missing:
    numbers = _numbers(claim, runs)
    if isinstance(numbers, Missing):
        return numbers
    return Value(statistics.median(numbers), "", min(numbers), max(numbers), f"median of {len(numbers)} runs")


def _numbers(claim: Claim, runs: Mapping[str, Run], quantity: str = "") -> list[float] | Missing:
    found = []
    for name in claim.runs:
        value = quantities.read(runs[name], quantity or claim.quantity)
        if isinstance(value, Missing):
            return Missing(f"{name}: {value.reason}")
        found.append(value.value)
    return found


def _truth(holds: bool, numbers: list[float] | None = None) -> Value:
    basis = "the verdict on memory" if numbers is None else ", ".join(f"{number:g}" for number in numbers)
    return Value(float(holds), "", float(holds), float(holds), basis)


_KINDS: Final[dict[Kind, Callable[[Claim, Mapping[str, Run]], Value | Missing]]] = {
    "value": _value, "fits-gpu": _fits_gpu, "fits-host": _fits_host, "ratio": _ratio, "order": _order, "lowest": _lowest,
    "lowest-of-like": _lowest_of_like, "median": _median,
}  # fmt: skip
