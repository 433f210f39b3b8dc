"""The time replay of captured jobs on every machine of the catalogue: nothing lost on the way, nothing slower for a faster part, limits kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from membound.cost.collectives import sent
from membound.replay.flows import FLOWS
from membound.replay.predict_time import Band, Timing, step_band, time_values, unknown_share
from membound.replay.program import compiled
from membound.replay.series import course
from membound.replay.step import KINDS, Played
from membound.replay.time import Replayer
from membound.replay.time_tables import time_tables
from membound.replay.timeline import play, play_twice
from membound.run import quantities
from membound.run.schema import Missing, Value
from membound.spec import catalogue
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.study.predicting import Predictor
from membound.trace.schema import KIND, PHASE, Trace

# One rank with fixed rows; ranks that wait for the longest row, with accumulation; states on the host; shards gathered on a stream of their own.
JOBS: dict[str, dict[str, Any]] = {
    "fixed": {"model": "tiny", "data": {"seq_len": 256}, "recipe": {"micro_batch": 2}, "machine": "rtx-4090"},
    "lengths": {
        "model": "tiny", "data": {"lengths": "alpaca", "max_length": 256}, "gpus": 2, "machine": "hgx-h100",
        "recipe": {"micro_batch": 2, "accumulation": 5, "engine": "ddp"},
    },
    "offload": {
        "model": "tiny", "data": {"seq_len": 128}, "gpus": 2, "machine": "hgx-h100",
        "recipe": {"micro_batch": 2, "precision": "bf16-mixed", "engine": "deepspeed", "zero_stage": 2, "offload": {"optimizer": "cpu"}},
    },
    "quantised": {
        "model": "tiny", "data": {"seq_len": 128}, "machine": "hgx-h100",
        "recipe": {"micro_batch": 2, "precision": "bf16", "method": "qlora", "recompute": "full"},
    },
    "shards": {
        "model": "tiny-gpt2", "data": {"seq_len": 128}, "gpus": 2, "machine": "hgx-h100",
        "recipe": {"micro_batch": 2, "precision": "bf16-mixed", "engine": "fsdp", "recompute": "full"},
    },
}  # fmt: skip
MACHINES = catalogue.machines()
TIMED = ("step.", "tokens.", "samples.", "flops.", "mfu", "gpu.busy", "gpu.power", "gpu.energy", "gpu.temperature", "hbm.temperature",
         "hbm.traffic", "hbm.bandwidth", "hbm.utilisation", "pcie.", "nvlink.", "cpu.", "host.memory.bandwidth")  # fmt: skip


def machine_for(name: str, gpus: int) -> Machine | None:
    """That machine as a Job of so many GPUs uses it; None where it has fewer and no network."""
    machine = catalogue.machine(name)
    return machine.with_gpus(gpus) if gpus <= machine.gpus else None


@pytest.fixture(scope="session")
def replayers() -> dict[str, Replayer]:
    return {name: Predictor().replayer(Job.model_validate(facts), facts.get("gpus", 1)) for name, facts in JOBS.items()}


@pytest.fixture(params=JOBS)
def replayer(request: pytest.FixtureRequest, replayers: dict[str, Replayer]) -> Replayer:
    return replayers[request.param]


PRICED: dict[tuple[int, str], Played] = {}


def priced(replayer: Replayer, machine: Machine) -> Played:
    """One of `replayers` on `machine`: priced once, for all tests that look at it."""
    key = id(replayer), machine.model_dump_json()
    if key not in PRICED:
        PRICED[key] = replayer.on(machine)
    return PRICED[key]


def machines_of(replayer: Replayer) -> list[Machine]:
    found = [machine_for(name, replayer.trace.header.ranks) for name in MACHINES]
    return [machine for machine in found if machine is not None]


def played_everywhere(replayer: Replayer) -> list[tuple[Machine, Played]]:
    return [(machine, priced(replayer, machine)) for machine in machines_of(replayer)]


def captured(trace: Trace) -> np.ndarray[Any, Any]:
    """Whether each instruction belongs to the last step, checkpoints left out."""
    return np.asarray((trace.instructions["step"] == trace.header.steps - 1) & (trace.instructions["phase"] != PHASE["save"]))


class TestNothingIsLost:
    def test_operations_and_copied_bytes_reach_the_phases(self, replayer: Replayer) -> None:
        """Of the captured micro-steps, at the captured length."""
        work = replayer.workload(catalogue.machine("h100-sxm").gpu)
        at = work.lengths.index(replayer.program.lengths[0])
        instructions, last = replayer.trace.instructions, captured(replayer.trace)
        played = priced(replayer, machines_of(replayer)[-1])
        flows = dict(zip(FLOWS, played.flows[:, :, at].sum(axis=0), strict=True))
        timed = last & np.isin(instructions["kind"], [KIND[kind] for kind in ("kernel", "copy_h2d", "copy_d2h", "collective", "host")])
        assert flows["flops"] == pytest.approx(instructions["flops"][timed].sum())
        for kind, name in (("copy_h2d", "h2d"), ("copy_d2h", "d2h")):
            moved = instructions["nbytes"][last & (instructions["kind"] == KIND[kind])].sum()
            assert flows[name] == pytest.approx(moved, rel=1e-3, abs=100)
        chosen = last & (instructions["kind"] == KIND["collective"])
        ops = [replayer.trace.header.ops[code] for code in instructions["op"][chosen]]
        passed_on = sent(ops, instructions["nbytes"][chosen].astype(float), instructions["ranks"][chosen]).sum()
        assert flows["nvlink"] == pytest.approx(passed_on, rel=1e-3, abs=100)

    def test_hbm_and_l2_together_move_what_kernels_touch(self, replayer: Replayer) -> None:
        for machine in machines_of(replayer):
            work = replayer.workload(machine.gpu)
            kernels = work.program.kind == KIND["kernel"]
            touched = np.bincount(work.program.operands.item, work.program.operands.nbytes_at(work.lengths[0]), len(work.program))
            assert (work.read >= 0).all()
            assert (work.written >= 0).all()
            assert work.read[kernels, 0].sum() <= touched[kernels].sum()
            assert work.read[:, 0].sum() + work.written[:, 0].sum() <= 2 * touched.sum()

    def test_parts_add_up_to_the_step(self, replayer: Replayer) -> None:
        for _, played in played_everywhere(replayer):
            busy, communication, offload, idle = played.mean(played.parts)
            # Collectives that no kernel hides are part of what is busy.
            assert busy + offload + idle == pytest.approx(float(played.own[0]))
            assert communication <= busy + 1e-12
            assert (played.parts >= -1e-12).all()
            assert sum(played.sensitivity.values()) == pytest.approx(1.0)
            assert sum(map(played.phase, ("data", "forward", "backward", "optimizer", "other"))) == pytest.approx(float(played.step[0]))

    def test_a_run_of_many_steps_moves_what_a_step_moves(self, replayers: dict[str, Replayer]) -> None:
        for name, tolerance in {"fixed": 0.02, "offload": 0.02, "shards": 0.02, "lengths": 0.05}.items():
            replayer = replayers[name]
            machine = machines_of(replayer)[-1]
            played = priced(replayer, machine)
            ran = course(played, 0.001, 200 * float(played.step[0]))
            step = dict(zip(FLOWS, played.mean(played.flows), strict=True))
            # A host that runs ahead does some of the next micro-step's work, of which the repeated one then has less.
            for flow in FLOWS[:-2] if played.accumulation > 1 else FLOWS:
                assert ran.rate(flow).mean() == pytest.approx(step[flow] / float(played.step[0]), rel=tolerance, abs=1e-6)
            busy = dict(zip(KINDS, played.mean(played.parts), strict=True))["busy"] + played.waiting
            assert ran.rate("busy").mean() == pytest.approx(busy / float(played.step[0]), rel=tolerance)

    def test_a_run_of_three_steps_has_three(self, replayers: dict[str, Replayer]) -> None:
        for _, played in played_everywhere(replayers["fixed"]):
            step = float(played.step[0])
            # Whichever way the sum of three is rounded.
            for seconds in (3 * step, np.nextafter(3 * step, 1e9), 3 * step * (1 + 1e-12)):
                assert [mark.kind for mark in course(played, 0.01, seconds).marks].count("step") == 3

    def test_every_operator_has_a_law(self, replayer: Replayer) -> None:
        assert unknown_share(priced(replayer, machines_of(replayer)[0])) < 0.02


def hbm(machine: Machine, factor: float) -> Machine:
    part = machine.gpu.hbm.model_copy(update={"clock": machine.gpu.hbm.clock * factor})
    return machine.model_copy(update={"gpu": machine.gpu.model_copy(update={"hbm": part})})


def core(machine: Machine, factor: float) -> Machine:
    gpu = machine.gpu
    clock = gpu.clock.model_copy(update={"boost": gpu.clock.boost * factor, "max": gpu.clock.max * factor})
    peaks = gpu.peaks.model_copy(update={name: rate * factor for name, rate in gpu.peaks.model_dump().items() if isinstance(rate, float)})
    return machine.model_copy(update={"gpu": gpu.model_copy(update={"clock": clock, "peaks": peaks})})


def pcie(machine: Machine, factor: float) -> Machine:
    part = machine.links.pcie.model_copy(update={"bandwidth": machine.links.pcie.bandwidth * factor})
    return machine.model_copy(update={"links": machine.links.model_copy(update={"pcie": part})})


def nvlink(machine: Machine, factor: float) -> Machine:
    rate = machine.links.nvlink
    links = machine.links.model_copy(update={"nvlink": None if rate is None else rate * factor})
    return machine.model_copy(update={"links": links})


def ddr(machine: Machine, factor: float) -> Machine:
    dimms = machine.host.dimms
    faster = dimms.model_copy(update={name: getattr(dimms, name) * factor for name in ("speed_1dpc", "speed_2dpc")})
    return machine.model_copy(update={"host": machine.host.model_copy(update={"dimms": faster})})


PARTS = {"hbm": hbm, "compute": core, "pcie": pcie, "nvlink": nvlink, "ddr": ddr}


def slow(machine: Machine) -> Machine:
    """A machine whose parts are so slow that even the smallest job hangs on them, and not on the host's launches."""
    for part in (hbm, core, pcie, ddr):
        machine = part(machine, 0.002)
    return machine


def with_slow_ones(replayer: Replayer) -> list[Machine]:
    return [each for machine in machines_of(replayer) for each in (machine, slow(machine))]


@pytest.mark.parametrize("faster", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("factor", [1.02, 1.7])
def test_no_job_gets_slower_where_a_part_gets_faster(replayer: Replayer, faster: Callable[[Machine, float], Machine], factor: float) -> None:
    for machine in with_slow_ones(replayer):
        before, after = (float(played.step[0]) for played in (priced(replayer, machine), replayer.on(faster(machine, factor))))
        # Which of ranks that hardly differ is the slowest is drawn by lot.
        assert after <= before * (1 + 1e-4), machine.name


@pytest.mark.parametrize("resource", PARTS)
def test_a_sensitivity_is_what_one_per_cent_saves(replayer: Replayer, resource: str) -> None:
    for machine in with_slow_ones(replayer):
        before = priced(replayer, machine)
        after = float(replayer.on(PARTS[resource](machine, 1.01)).step[0])
        saved = (float(before.step[0]) - after) / float(before.step[0]) / (1 - 1 / 1.01)
        # A share is a slope: within one per cent copies may change their turn, and kernels lie beside collectives a little longer or shorter.
        assert saved == pytest.approx(before.sensitivity[resource], abs=0.02), machine.name


def test_a_second_play_with_nothing_slower_is_the_first(replayer: Replayer) -> None:
    for machine, before in played_everywhere(replayer):
        prices = dataclasses.replace(before.prices, slower=None)
        first = play(replayer.program, prices)
        (again,) = play_twice(replayer.program, [prices], [lambda line: np.ones(line.start.shape)])
        np.testing.assert_allclose(again.end, first.end, rtol=1e-9, err_msg=machine.name)
        np.testing.assert_allclose(again.borders, first.borders, rtol=1e-9, atol=1e-15, err_msg=machine.name)


def test_the_sensitivity_to_launching_is_what_a_faster_host_saves(replayer: Replayer) -> None:
    for _, before in played_everywhere(replayer):
        line = play(before.work.program, before.prices, 1 / 1.01)
        faster = Played(before.work, before.prices, line, before.repeat, before.accumulation, before.ranks, before.lengths)
        saved = (float(before.own[0]) - float(faster.own[0])) / float(before.own[0]) / (1 - 1 / 1.01)
        own = float(before.own[4] / before.own[0])
        assert saved == pytest.approx(own, abs=0.02)


class TestValues:
    def test_every_quantity_of_time_has_a_value_in_its_band(self, replayer: Replayer) -> None:
        expected = {name for name in quantities.QUANTITIES if name.startswith(TIMED)}
        for machine in machines_of(replayer):
            values = time_values(Timing.of(priced(replayer, machine), machine, seconds=1.0))
            assert set(values) == expected
            quantities.validate(values)
            missing = {name for name, value in values.items() if isinstance(value, Missing)}
            assert missing <= ({"nvlink.bandwidth.mean"} if machine.links.nvlink is None else set())
            assert all(value.basis and value.value >= 0 for value in values.values() if isinstance(value, Value))

    def test_shares_stay_shares_and_power_below_its_limit(self, replayer: Replayer) -> None:
        for machine, played in played_everywhere(replayer):
            timing = Timing.of(played, machine, seconds=1.0)
            values = {name: value for name, value in time_values(timing).items() if isinstance(value, Value)}
            for name in ("gpu.busy", "mfu", "hbm.utilisation.mean", "hbm.utilisation.peak", "cpu.utilisation.mean"):
                assert 0 <= values[name].value <= 1
            assert (timing.power <= machine.gpu.power.limit + 1e-9).all()
            assert values["gpu.power.peak"].high <= machine.gpu.power.limit
            assert values["gpu.power.mean"].value <= values["gpu.power.peak"].value
            assert values["gpu.energy.step"].value == pytest.approx(values["gpu.power.mean"].value * values["step.time"].value)
            assert (timing.clock <= machine.gpu.clock.max).all()

    def test_products_with_a_packed_weight_run_on_the_tensor_cores(self, replayers: dict[str, Replayer]) -> None:
        _, played = played_everywhere(replayers["quantised"])[0]
        program = played.work.program
        packed = np.array([name.startswith("bitsandbytes.gemm_4bit") for name in program.trace.header.ops])[program.op]
        all_of_them, tensor = (played.work.flows.by_item[:, FLOWS.index(name), packed].sum() for name in ("flops", "tensor_flops"))
        assert tensor == all_of_them > 0

    def test_rates_are_what_the_step_takes(self, replayers: dict[str, Replayer]) -> None:
        for name, (rows, tokens) in {"fixed": (2, 512), "offload": (2, 256), "shards": (2, 256)}.items():
            machine = machines_of(replayers[name])[-1]
            played = priced(replayers[name], machine)
            values = time_values(Timing.of(played, machine, seconds=1.0))
            step = float(played.step[0])
            amounts = {key: value.value for key, value in values.items() if isinstance(value, Value)}
            assert amounts["tokens.rate"] == pytest.approx(tokens / step)
            assert amounts["tokens.rate.useful"] == pytest.approx(tokens / step)
            assert amounts["samples.rate"] == pytest.approx(rows * played.ranks / step)

    def test_recomputed_operations_do_not_count_as_the_models(self, replayers: dict[str, Replayer]) -> None:
        again = replayers["shards"]
        job = Job.model_validate(JOBS["shards"] | {"recipe": JOBS["shards"]["recipe"] | {"recompute": "none"}})
        once = Predictor().replayer(job, 2)
        machine = machines_of(again)[-1]
        values = [time_values(Timing.of(each.on(machine), machine, seconds=1.0))["flops.model"] for each in (once, again)]
        first, second = (value.value for value in values if isinstance(value, Value))
        assert second == pytest.approx(first, rel=0.01)

    def test_tables_are_on_their_grids(self, replayer: Replayer) -> None:
        machine = machines_of(replayer)[-1]
        timing = Timing.of(priced(replayer, machine), machine, seconds=3.0)
        tables = time_tables(timing, 1.0, 1.0, 1.0)
        assert np.diff(tables["gpu"]["time"].to_numpy()) == pytest.approx(0.02)
        assert np.diff(tables["host"]["time"].to_numpy()) == pytest.approx(1.0)
        assert sum(tables["time.resources"]["share"].to_pylist()) == pytest.approx(1.0)
        steps = [mark for mark in tables["marks"].to_pylist() if mark["name"] == "step"]
        assert [mark["start"] for mark in steps[1:]] == pytest.approx([mark["end"] for mark in steps[:-1]])

    def test_a_band_is_wider_where_the_host_decides(self, replayers: dict[str, Replayer]) -> None:
        played = priced(replayers["fixed"], catalogue.machine("h100-sxm"))
        band = step_band(played)
        assert band.less > 0.3 * played.sensitivity["launch"]
        assert band.more > 0.9 * played.sensitivity["launch"]

    def test_what_is_over_a_time_has_its_band_turned(self) -> None:
        time, rate = Band(0.2, 1.0), Band(0.2, 1.0).turned
        assert (1 - rate.less, 1 + rate.more) == pytest.approx((1 / (1 + time.more), 1 / (1 - time.less)))


class TestLengths:
    """Two captures give every size at any length."""

    @pytest.mark.parametrize("length", [64, 96, 200])
    def test_sizes_at_a_third_length_are_those_of_a_capture_there(self, replayers: dict[str, Replayer], length: int) -> None:
        program = replayers["lengths"].program
        assert program.lengths[0] != program.lengths[1]
        facts = JOBS["lengths"] | {"data": {"lengths": "alpaca", "max_length": length}}
        real = compiled(Predictor().trace(Job.model_validate(facts), 2))
        assert program.ops() == real.ops()
        here, there = program.operands.nbytes_at(length), real.operands.nbytes[0]
        apart = np.flatnonzero(here != there)
        # Sizes are straight lines; memory-efficient attention rounds its log-sum-exp up to whole blocks of 32 tokens.
        assert {real.ops()[item] for item in real.operands.item[apart]} <= {
            "aten._scaled_dot_product_efficient_attention.default", "aten._scaled_dot_product_efficient_attention_backward.default"
        }  # fmt: skip
        np.testing.assert_allclose(here[apart], there[apart], rtol=32 / length)
        np.testing.assert_allclose(program.flops_at(length), real.flops[0], rtol=1e-9)
        np.testing.assert_array_equal(program.moved_at(length), real.moved[0])
        shapes, others = program.operands.shapes_at(length), real.operands.shapes_at(length)
        known = np.delete(np.arange(len(here)), apart)
        assert [shapes[form] for form in program.operands.form[known]] == [others[form] for form in real.operands.form[known]]

    def test_longer_rows_take_longer(self, replayers: dict[str, Replayer]) -> None:
        for machine in machines_of(replayers["lengths"]):
            played = priced(replayers["lengths"], machine)
            micro = played.borders[-1]
            # Where the host holds every micro-step to the same time, its queue is looked at in steps: a per mille.
            assert (np.diff(micro) >= -1e-3 * micro[1:]).all()

    def test_waiting_for_the_longest_row_is_part_of_the_step(self, replayers: dict[str, Replayer]) -> None:
        played = priced(replayers["lengths"], machines_of(replayers["lengths"])[-1])
        # Without a host that holds every micro-step to the same time.
        line = play(played.work.program, played.prices, 0.0)
        alone = Played(played.work, played.prices, line, played.repeat, played.accumulation, played.ranks, played.lengths)
        assert 0 < alone.waiting < 0.5 * float(alone.own[0])
        assert not alone.together  # Accumulated: gradients are reduced once a step, though buffers are sent around before its first forward.
        many = Played(played.work, played.prices, line, played.repeat, played.accumulation, 16, played.lengths)
        assert many.waiting > alone.waiting


def test_a_look_up_goes_through_the_rows_that_it_finds_not_through_its_table() -> None:
    facts = {"model": "tiny", "data": {"seq_len": 8}, "recipe": {"micro_batch": 1}, "machine": "rtx-4090"}
    work = Predictor().replayer(Job.model_validate(facts), 1).on(catalogue.machine("rtx-4090").with_gpus(1)).work
    ops = np.array(work.program.trace.header.ops)[work.program.op]
    chosen = ops == "aten.embedding.default"
    assert chosen.any()
    moved = (work.read + work.written + work.cached)[chosen]
    # Numbers of 32 bits, read and written; no table.
    assert (work.elements[chosen] * 2 * 4 <= moved * 1.01).all()
    assert (work.elements[chosen] > 0).all()
