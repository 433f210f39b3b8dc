"""Rates of a profile from measured kernels: efficiency and elements a second from the large ones, fixed times from the small ones, bands from
how they scatter.

Each rate begins as the reference profile has it and is moved, time and again, by what the kernels that hang on it most are off in the median, over
how much they hang on it. So medians decide, and a kernel that has nothing to say of a constant does not move it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.calibrated import Calibrated
from membound.cost.law import Array, Kernels, Priced
from membound.cost.profile import Profile, Rate
from membound.spec.machine import Gpu
from membound.study.calibration.calls import Row, number
from membound.study.calibration.samples import Sample

Flags = npt.NDArray[np.bool_]
# A constant is moved by kernels of whose time it decides so large a share, and by so many of them at least.
_DECIDES: Final = 0.5
_ENOUGH: Final = 2
# Steps towards the medians: the shares change as the constants do, and settle within ten.
_STEPS: Final = 16
# Bounds of what a fit may say: no kernel is faster than HBM, and the narrowest band is what two runs of one kernel differ by.
_MOST: Final = 1.0
_NARROWEST: Final = 0.05
# Fewer kernels than this say too little of how others scatter to make the reference's band narrower.
_MANY: Final = 10
# One kernel each, dense operands of one type, next to no arithmetic: what the L2's bandwidth is read from.
_PLAIN: Final = frozenset(
    {
        "aten.add.Tensor", "aten.mul.Tensor", "aten.mul.Scalar", "aten.neg.default", "aten.pow.Tensor_Scalar", "aten.silu.default",
        "aten.silu_backward.default", "aten.gelu.default", "aten.gelu_backward.default",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """All measured kernels of one law that hang on one rate."""

    law: Calibrated
    kernels: Kernels
    seconds: Array
    large: Flags


def grouped(found: Iterable[Sample]) -> dict[str, list[Group]]:
    """Samples by the rate that they hang on."""
    held: dict[tuple[str, int], list[Sample]] = {}
    for sample in found:
        held.setdefault((sample.rate, id(sample.law)), []).append(sample)
    groups: dict[str, list[Group]] = {}
    for (rate, _), members in held.items():
        groups.setdefault(rate, []).append(_group(members))
    return groups


def _group(members: Sequence[Sample]) -> Group:
    parts = [member.kernels for member in members]
    flops, read, written, touched = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("flops", "hbm_read", "hbm_written", "touched")
    )  # fmt: skip
    ops, reads, writes = (tuple(getattr(part, name)[0] for part in parts) for name in ("op", "reads", "writes"))
    kernels = Kernels(ops, reads, writes, flops, read, written, touched, even=np.concatenate([part.even for part in parts]))
    return Group(members[0].law, kernels, np.array([m.seconds for m in members]), np.array([m.large for m in members], np.bool_))


def begin(reference: Profile, gpu: Gpu) -> Profile:
    """The reference as it would be had it been measured on `gpu`: what follows the core clock scaled to its clock and processors."""
    faster = gpu.clock.max * gpu.sms / (reference.clock * reference.sms)
    families = {name: replace(rate, elements=rate.elements * faster) for name, rate in reference.families.items()}
    return replace(
        reference, gpu=gpu.name, clock=gpu.clock.max, sms=gpu.sms, l2_bandwidth=reference.l2_bandwidth * faster, families=families, borrowed=False,
        path=None, factors={}, copy_latency=None, unmeasured=(),
    )  # fmt: skip


def fitted(start: Profile, groups: Mapping[str, list[Group]], gpu: Gpu) -> Profile:
    """`start` with every rate that `groups` have kernels of moved to where they are right in the median; the others are named."""
    profile = start
    # Others lean on what is plainly pointwise: first.
    for name in sorted(start.families, key=lambda name: name != "pointwise"):
        if name in groups:
            profile = _settled(profile, name, groups[name], gpu)
    return replace(profile, unmeasured=tuple(name for name in start.families if name not in groups))


def _settled(profile: Profile, name: str, groups: Sequence[Group], gpu: Gpu) -> Profile:
    for _ in range(_STEPS):
        priced = [group.law.priced(group.kernels, gpu, profile) for group in groups]
        profile = _with(profile, name, _moved(profile.rate(name), groups, priced))
    priced = [group.law.priced(group.kernels, gpu, profile) for group in groups]
    rate = profile.rate(name)
    return _with(profile, name, Rate(_rounded(rate.efficiency), _rounded(rate.elements), _rounded(rate.fixed), _band(rate, groups, priced)))


def _moved(rate: Rate, groups: Sequence[Group], priced: Sequence[Priced]) -> Rate:
    off = np.concatenate([np.log(p.seconds / group.seconds) for p, group in zip(priced, groups, strict=True)])
    large = np.concatenate([group.large for group in groups])
    by_compute, by_memory, by_fixed = (np.concatenate([getattr(p, name) for p in priced]) for name in ("compute", "memory", "fixed"))
    by_efficiency = by_memory if groups[0].law.efficiency_of == "memory" else by_compute
    efficiency = rate.efficiency * math.exp(_step(off, by_efficiency, large))
    elements = rate.elements if math.isinf(rate.elements) else rate.elements * math.exp(_step(off, by_compute, large))
    fixed = rate.fixed * math.exp(-_step(off, by_fixed, np.ones(len(off), np.bool_)))
    # No kernel starts and ends in more time than the quickest of all took: without this a few that are slow for another reason, once efficiency
    # has reached its bound, would be told as a start of hundreds of microseconds.
    quickest = min(float(group.seconds.min()) for group in groups)
    return Rate(min(efficiency, _MOST), elements, min(fixed, quickest), rate.band)


def _step(off: Array, share: Array, counted: Flags) -> float:
    """How far, as a logarithm, a constant is to grow: the median of what the kernels that it decides are too slow by, over its share of them."""
    deciding = counted & (share > _DECIDES)
    return float(np.median(off[deciding] / share[deciding])) if deciding.sum() >= _ENOUGH else 0.0


def _band(rate: Rate, groups: Sequence[Group], priced: Sequence[Priced]) -> float:
    """Eight in ten kernels larger than the L2 are within it; of all, where there are too few of those."""
    off = np.concatenate([np.abs(p.seconds / group.seconds - 1) for p, group in zip(priced, groups, strict=True)])
    large = np.concatenate([group.large for group in groups])
    counted = off[large] if large.sum() > _ENOUGH else off
    least = _NARROWEST if len(counted) >= _MANY else rate.band
    return _rounded(max(float(np.quantile(counted, 0.8)), least), 2)


def l2_bandwidth(rows: Iterable[Row], gpu: Gpu) -> float | None:
    """B/s between L2 and processors: how much longer a warm pointwise kernel takes for more bytes that the L2 holds; None where none was measured."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        nbytes, seconds = number(row, "bytes"), number(row, "seconds_warm")
        if row["family"] == "pointwise" and row["op"] in _PLAIN and nbytes and seconds and nbytes <= 0.5 * gpu.l2 and "," not in row["shapes"]:
            found.setdefault((row["op"], row["dtype"]), []).append((nbytes, seconds))
    ends = [(min(pairs), max(pairs)) for pairs in found.values()]
    slopes = [(most[0] - least[0]) / (most[1] - least[1]) for least, most in ends if most[1] > least[1]]
    return _rounded(float(np.median(slopes))) if slopes else None


def _with(profile: Profile, name: str, rate: Rate) -> Profile:
    return replace(profile, families={**profile.families, name: rate})


def _rounded(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")
