"""Kernels beside collectives: slower there and nowhere else, and on each machine of a sweep as alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from membound.cost.resources import ROWS
from membound.replay import intervals
from membound.replay.beside import beside_collectives
from membound.replay.pricing import priced
from membound.replay.side_by_side import on_each
from membound.replay.step import Played
from membound.replay.time import Replayer
from membound.replay.timeline import play, play_twice
from membound.spec import catalogue
from membound.spec.job import Job
from membound.study.predicting import Predictor
from membound.trace.schema import KIND

SHARDS: dict[str, Any] = {
    "model": "tiny", "data": {"seq_len": 256}, "gpus": 2, "machine": "hgx-h100",
    "recipe": {"micro_batch": 4, "precision": "bf16-mixed", "engine": "fsdp", "recompute": "full"},
}  # fmt: skip
MACHINE = catalogue.machine("hgx-h100").with_gpus(2)


@pytest.fixture(scope="module")
def replayer() -> Replayer:
    return Predictor().replayer(Job.model_validate(SHARDS), 2)


@pytest.fixture(scope="module")
def alone() -> Replayer:
    facts = {**SHARDS, "gpus": 1, "recipe": {"micro_batch": 4}}
    return Predictor().replayer(Job.model_validate(facts), 1)


def test_kernels_beside_collectives_take_longer_and_no_others(replayer: Replayer) -> None:
    # Launches out of the way: a GPU that waits for its host runs little beside anything.
    quick = MACHINE.model_copy(update={"host": MACHINE.host.model_copy(update={"call_time": 1e-3})})
    work = replayer.workload(quick.gpu)
    prices = priced(work, quick, 2)
    line = play(replayer.program, prices)
    factors = beside_collectives(line, work, prices, quick)
    assert factors is not None
    kind = work.program.kind
    kernel, collective = kind == KIND["kernel"], kind == KIND["collective"]
    assert (factors[~kernel] == 1).all()
    assert (factors >= 1).all()
    edges = np.concatenate([line.start[kernel, 0], line.end[kernel, 0]])
    within = intervals.covered(line.start[collective, 0], line.end[collective, 0], edges)
    shared = within[kernel.sum() :] - within[: kernel.sum()]
    assert (factors[kernel, 0][shared <= 0] == 1).all()
    assert (factors[kernel, 0][shared > 0] > 1).any()
    # No more than twice: half of the SMs and of the bandwidth are left.
    assert factors.max() < 2


def test_a_gpu_without_collectives_has_nothing_beside_it(alone: Replayer) -> None:
    machine = catalogue.machine("h100-sxm")
    work = alone.workload(machine.gpu)
    prices = priced(work, machine, 1)
    assert beside_collectives(play(alone.program, prices), work, prices, machine) is None


def test_machines_side_by_side_get_what_each_gets_alone(replayer: Replayer) -> None:
    machines = [MACHINE, MACHINE.model_copy(update={"links": MACHINE.links.model_copy(update={"nvlink": 50e9})})]
    for machine, found in zip(machines, on_each(replayer, machines), strict=True):
        assert isinstance(found, Played)
        np.testing.assert_allclose(found.step, replayer.on(machine).step, rtol=1e-9)
        assert found.step.shape == (ROWS,)


def test_slower_kernels_make_no_step_shorter(replayer: Replayer) -> None:
    work = replayer.workload(MACHINE.gpu)
    prices = priced(work, MACHINE, 2)
    without = play(replayer.program, prices).borders[-1, 0]
    assert (replayer.on(MACHINE).timeline.borders[-1, 0] >= without * (1 - 1e-12)).all()


def test_going_on_from_the_first_play_is_as_good_as_playing_anew(replayer: Replayer) -> None:
    work = replayer.workload(MACHINE.gpu)
    prices = priced(work, MACHINE, 2)
    (line,) = play_twice(replayer.program, [prices], [lambda first: beside_collectives(first, work, prices, MACHINE)])
    anew = play(replayer.program, line.prices)
    np.testing.assert_array_equal(line.end, anew.end)
    np.testing.assert_array_equal(line.borders, anew.borders)
