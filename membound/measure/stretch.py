"""How often each sensor is asked, so that all calls together take no more of a core than they may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from membound.measure.sensors.base import Card

BUDGET: Final = 0.016
"""Share of a core for all calls to the driver, Python's part of each included; the rest of the 3 % that the sampler may take is waking up by the grid
and keeping what was read: 1.3 % beside a job on two H200s in a slow virtual machine (validation/h200/results-2.jsonl)."""

Why = Literal["grid", "native period", "budget"]
"""Why a sensor is asked as often as it is: at each tick of its grid; as often as its source has something new; or less often, for its cost."""

# No sensor is stretched until it costs less than this part of an equal share of the budget: where what cannot be stretched passes the budget by
# itself, stretching the cheap ones would be in vain.
_LEAST: Final = 0.5
# Halvings that find the level to a part in 10^12.
_HALVINGS: Final = 40


def intervals(cards: Sequence[Card], costs: Sequence[float], grid: float, budget: float = BUDGET) -> list[float]:
    """How often to ask each sensor of a table, s: as its card wishes, or less often, on the grid of `grid` s. `costs`: s of a core per call."""
    wished = [card.every for card in cards]
    longest = [max(card.every, card.longest) for card in cards]
    enough = [min(max(card.every, card.enough), most) for card, most in zip(cards, longest, strict=True)]
    found = stretch(costs, wished, enough, longest, budget)
    return [wish if every <= wish else _on_grid(every, grid) for every, wish in zip(found, wished, strict=True)]


def stretch(costs: Sequence[float], wished: Sequence[float], enough: Sequence[float], longest: Sequence[float], budget: float) -> list[float]:
    """Intervals between calls, s, whose calls take no more than `budget` of a core, where that can be had between `wished` and `longest`.

    `costs` s of a core per call. Whatever is stretched costs as much as any other that is, and all others cost less: none waits longer than its
    cost justifies (max-min fairness). First those wait that lose next to nothing by it, up to `enough`; the rest only if that does not do.
    """
    if not costs:
        return []
    least = _LEAST * budget / len(costs)
    spared = _at_level(costs, wished, enough, _level(costs, wished, enough, budget, least))
    if _spent(costs, spared) <= budget:
        return spared
    # What costs less than this would not be stretched anyway: that it could spare something does not matter.
    level = _level(costs, wished, longest, budget, least)
    first = [most if cost / wish > level else wish for cost, wish, most in zip(costs, wished, enough, strict=True)]
    return _at_level(costs, first, longest, _level(costs, first, longest, budget, least))


def why(card: Card, wished: float, grid: float) -> Why:
    """Why the sensor of `card`, which wished to be asked every `wished` s, is asked as often as its card has it by now."""
    if card.every > wished * (1 + 1e-6):
        return "budget"
    return "native period" if wished > grid * (1 + 1e-6) else "grid"


def _level(costs: Sequence[float], shortest: Sequence[float], longest: Sequence[float], budget: float, least: float) -> float:
    """Share of a core that no sensor may pass, so that all together take `budget`; no less than `least`."""
    high = max(cost / wait for cost, wait in zip(costs, shortest, strict=True))
    if high <= least or _spent(costs, shortest) <= budget:
        return max(high, least)
    low = least
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _spent(costs, _at_level(costs, shortest, longest, middle)) <= budget:
            low = middle
        else:
            high = middle
    return low


def _at_level(costs: Sequence[float], shortest: Sequence[float], longest: Sequence[float], level: float) -> list[float]:
    return [min(max(cost / level, low), high) for cost, low, high in zip(costs, shortest, longest, strict=True)]


def _spent(costs: Sequence[float], every: Sequence[float]) -> float:
    return sum(cost / wait for cost, wait in zip(costs, every, strict=True))


def _on_grid(every: float, grid: float) -> float:
    return math.ceil(every / grid - 1e-6) * grid
