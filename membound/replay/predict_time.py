"""What the time replay puts into a Run: values with their bands."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost import dtypes
from membound.cost.heat import temperatures, thermal_of
from membound.cost.power import board_power, core_clock, energy_of
from membound.cost.profile import profile_of
from membound.replay.flows import FLOWS
from membound.replay.outside import ranks_on_node
from membound.replay.series import Course, course
from membound.replay.step import KINDS, Played
from membound.run.schema import Missing, Value
from membound.run.series import GPU_PERIOD
from membound.spec.machine import Machine
from membound.trace.schema import PHASE

Floats = npt.NDArray[np.float64]

SERIES_SECONDS: Final = 30.0
"""Length of the run whose series a prediction draws, s."""

# What is added to the kernels' own bands. Launch costs are another host's until calibrated here, which may be quicker: by how much is a judgement.
# Prices of calls are the least that was measured, of which the same virtual machine took 1.42 times in the median of 64 calls and 1.98 times at the
# 90th percentile at another hour (validation/kernels/h100-sxm.csv, h100-sxm-host.csv). The L2 model against HBM counters has not been measured
# tensor by tensor.
_LAUNCH_QUICKER: Final = 0.4
_LAUNCH_SLOWER: Final = 1.0
_TRAFFIC_BAND: Final = 0.15
_BEYOND: Final = 0.03
"""What no single kernel shows: clocks, refresh, other processes."""


@dataclass(frozen=True)
class Band:
    """How much less and how much more a time may be, relative to it."""

    less: float
    more: float

    def beside(self, other: float) -> Band:
        """With what may be off by `other` either way beside it."""
        return Band(self.less + other, self.more + other)

    @property
    def turned(self) -> Band:
        """Of what is over that time: more time makes it smaller."""
        return Band(self.more / (1 + self.more), 1 / max(1 - self.less, 0.1) - 1)


@dataclass(frozen=True)
class Timing:
    """A step on a machine, and a stretch of the run."""

    played: Played
    machine: Machine
    course: Course
    power: Floats
    """W in each bin of the course."""
    clock: Floats
    """Hz in each bin."""
    die: Floats
    memory: Floats
    """degC in each bin."""

    @functools.cached_property
    def band(self) -> Band:
        """Of the step's time."""
        return step_band(self.played)

    @classmethod
    def of(cls, played: Played, machine: Machine, seconds: float = SERIES_SECONDS) -> Timing:
        """With `seconds` of the run at 20 ms: at least three steps of it, or one of a long one."""
        length = max(seconds, min(3 * float(played.step[0]), 4 * seconds))
        ran = course(played, GPU_PERIOD, length)
        gpu = machine.gpu
        rates = {name: ran.rate(name) for name in ("busy", *FLOWS)}
        free = board_power(gpu, played.load(rates))
        power = np.minimum(free, gpu.power.limit)
        die, memory = temperatures(gpu, power, GPU_PERIOD)
        return cls(played, machine, ran, power, core_clock(gpu, free), die, memory)


def time_values(timing: Timing) -> dict[str, Value | Missing]:
    """The values of a Run that time decides, by quantity name."""
    return {**mean_values(timing), **_hidden(timing)}


def mean_values(timing: Timing) -> dict[str, Value | Missing]:
    """Those of them for which nobody needs to know what of the step hides what else."""
    return {**_speed(timing), **_traffic(timing), **_power(timing)}


def step_band(played: Played) -> Band:
    """Of the step's time: its kernels' bands, weighted by their time, and that of launches."""
    index = played.prices.index
    seconds = played.prices.table[0].mean(axis=1)[index]
    total = float(seconds.sum())
    kernels = float((seconds * played.prices.band[index]).sum() / total) if total else 0.0
    launching = float(played.sensitivity["launch"])
    return Band(_LAUNCH_QUICKER * launching, _LAUNCH_SLOWER * launching).beside(kernels + _BEYOND)


def unknown_share(played: Played) -> float:
    """Share of the step in operators that no law knows."""
    return a_step(played, played.prices.unknown[played.prices.index]) / float(played.step[0])


def model_flops(played: Played) -> float:
    """FLOPs of a step on one GPU without those that recomputation repeats."""
    program = played.work.program
    recipe = program.trace.header.job.get("recipe", {})
    flops = played.work.flops
    total = a_step(played, flops)
    if recipe.get("recompute") != "full":
        return total
    heads = np.array([path.rpartition(".")[2] in {"lm_head", "embed_out"} for path in program.trace.header.modules])
    module = program.trace.instructions["module"][program.row]
    again = np.where(((program.phase == PHASE["forward"]) & ~heads[module])[:, None], flops, 0.0)
    return total - a_step(played, again)


def a_step(played: Played, amounts: Floats) -> float:
    """A step's mean of what is given by item and row length, [n, K]."""
    return float(played.mean(np.add.reduceat(amounts, played.timeline.segments, axis=0)))


def _speed(timing: Timing) -> dict[str, Value | Missing]:
    played, machine = timing.played, timing.machine
    band, over = timing.band, timing.band.turned
    step = float(played.step[0])
    basis = "captured operations priced kernel by kernel and replayed over their streams" + profile_of(machine.gpu).note()
    lengths, per_step = played.lengths, played.lengths.micro_batch * played.accumulation
    fed = lengths.padded_mean(lengths.micro_batch) * per_step
    flops = model_flops(played)
    peak = dtypes.peak(machine.gpu, _dtype(played))
    busy = float(played.mean(played.busy)) + played.waiting

    def seconds(value: float, text: str) -> Value:
        return _within(value, "s", band, text)

    found: dict[str, Value | Missing] = {
        "step.time": seconds(step, basis),
        **{f"step.time.{name}": seconds(played.phase(name), basis) for name in ("forward", "backward", "optimizer")},
        "tokens.rate": _within(fed / step, "token/s", over, "rows padded to the longest of their micro-batch, over step.time"),
        "tokens.rate.useful": _within(lengths.mean * per_step / step, "token/s", over, "tokens without padding, over step.time"),
        "samples.rate": _within(per_step * played.ranks / step, "sample/s", over, "rows of all GPUs over step.time"),
        "flops.model": _within(flops, "FLOP", 0.02, "captured products and attention, recomputation left out; causal attention counted whole"),
        "mfu": _within(flops / step / peak, "1", over, f"flops.model over step.time and {peak / 1e12:,.0f} TFLOP/s"),
        "gpu.busy": _share(busy / step, Band(over.less / 2, over.more / 2), "kernels and collectives running, waiting in collectives included"),
    }
    return found


def _hidden(timing: Timing) -> dict[str, Value | Missing]:
    """What nothing hides."""
    played = timing.played
    parts = dict(zip(KINDS, played.mean(played.parts).tolist(), strict=True))
    exposed = {
        "exposed_communication": (
            parts["communication"] + played.waiting, "collectives that no kernel hides, and waiting for the rank with the longest rows",
        ),
        "exposed_offload": (parts["offload"], "copies and host work that neither kernels nor collectives hide"),
        "idle": (parts["idle"], "no kernel, collective, copy or offloaded work running: the host launches too slowly"),
    }  # fmt: skip
    return {f"step.time.{name}": _within(value, "s", timing.band, text) for name, (value, text) in exposed.items()}


def _traffic(timing: Timing) -> dict[str, Value | Missing]:
    played, machine, ran = timing.played, timing.machine, timing.course
    step, over = float(played.step[0]), timing.band.turned
    band = over.beside(_TRAFFIC_BAND)
    flows = dict(zip(FLOWS, played.mean(played.flows).tolist(), strict=True))
    both = flows["read"] + flows["written"]
    peak = _top(ran.rate("read") + ran.rate("written"))
    limit = machine.gpu.hbm.bandwidth
    ranks = ranks_on_node(played.work.program.trace, machine)
    basis = "operands of captured kernels through a tensor-level model of the L2"
    busiest = "the busiest 20 ms of a predicted stretch of the run"
    cores = machine.host.sockets * machine.host.cores_per_socket
    working = min(ranks * (step + flows["cores"] * machine.host.cores_of(ranks)) / (cores * step), 1.0)
    return {
        "hbm.traffic.read": _within(flows["read"], "B", _TRAFFIC_BAND, basis),
        "hbm.traffic.write": _within(flows["written"], "B", _TRAFFIC_BAND, basis),
        "hbm.bandwidth.mean": _within(both / step, "B/s", band, f"{basis}, over step.time"),
        "hbm.bandwidth.peak": _within(peak, "B/s", band, busiest),
        "hbm.utilisation.mean": _share(both / step / limit, band, "hbm.bandwidth.mean over the peak at this memory clock"),
        "hbm.utilisation.peak": _share(peak / limit, band, "hbm.bandwidth.peak over the peak at this memory clock"),
        "pcie.bandwidth.h2d.mean": _within(flows["h2d"] / step, "B/s", over, "captured copies over step.time"),
        "pcie.bandwidth.d2h.mean": _within(flows["d2h"] / step, "B/s", over, "captured copies over step.time"),
        "nvlink.bandwidth.mean": _nvlink(flows["nvlink"] / step, over, machine, played.ranks),
        "host.memory.bandwidth.mean": _within(flows["dimms"] * ranks / step, "B/s", band, "copies and host work of a node's ranks, over step.time"),
        "cpu.utilisation.mean": _share(working, 0.3, "one launching core per rank, and host work on the rank's threads"),
    }  # fmt: skip


def _nvlink(rate: float, band: Band, machine: Machine, ranks: int) -> Value | Missing:
    if machine.links.nvlink is None and ranks > 1:
        return Missing(f"{machine.name} has no NVLink: its GPUs speak over PCIe")
    return _within(rate, "B/s", band, "bytes of captured collectives over step.time")


def _power(timing: Timing) -> dict[str, Value | Missing]:
    gpu, step = timing.machine.gpu, float(timing.played.step[0])
    energy, thermal = energy_of(gpu), thermal_of(gpu)
    mean = float(timing.power.mean())
    watts = f"{energy.source}; capped at the board's {gpu.power.limit:g} W"

    def degrees(value: float) -> Value:
        return Value(value, "degC", value - thermal.band, value + thermal.band, f"first-order heat sink: {thermal.source}")

    def power(value: float) -> Value:
        low, high = value * (1 - energy.band), min(value * (1 + energy.band), gpu.power.limit)
        return Value(value, "W", low, max(high, value), watts)

    return {
        "gpu.power.mean": power(mean),
        "gpu.power.peak": power(_top(timing.power)),
        "gpu.energy.step": _within(mean * step, "J", timing.band.beside(energy.band), "gpu.power.mean over step.time"),
        "gpu.temperature.mean": degrees(float(timing.die.mean())),
        "gpu.temperature.peak": degrees(_top(timing.die)),
        "hbm.temperature.mean": degrees(float(timing.memory.mean())),
        "hbm.temperature.peak": degrees(_top(timing.memory)),
    }


def _dtype(played: Played) -> str:
    """Type of the numbers that most of the step's operations multiply."""
    flows = dict(zip(FLOWS, played.mean(played.flows).tolist(), strict=True))
    return "bfloat16" if flows["tensor_flops"] >= 0.5 * flows["flops"] else "float32"


def _top(values: Floats) -> float:
    return float(values.max()) if len(values) else 0.0


def _within(value: float, unit: str, band: Band | float, basis: str) -> Value:
    around = band if isinstance(band, Band) else Band(band, band)
    return Value(float(value), unit, float(value * max(1 - around.less, 0.0)), float(value * (1 + around.more)), basis)


def _share(value: float, band: Band | float, basis: str) -> Value:
    found = _within(min(max(value, 0.0), 1.0), "1", band, basis)
    return Value(found.value, "1", found.low, min(found.high, 1.0), basis)
