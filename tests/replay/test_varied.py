"""Rows of differing length through the allocator: the Program's own order, each block's bytes as a capture of that length has them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from membound.programs.data import Rows
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.gpu_memory import gpu_memory
from membound.replay.lengths import Lengths
from membound.replay.memory_program import ALLOC, program
from membound.replay.script import Script, Scripts
from membound.replay.time import Replayer, pace
from membound.replay.varied import varied
from membound.spec import catalogue
from membound.spec.job import Job
from membound.spec.lengths import ROWS
from membound.study.predicting import Predictor
from membound.trace.schema import PLACE

DATA = {"lengths": "alpaca", "max_length": 256}
JOBS: dict[str, dict[str, Any]] = {
    "alone": {"model": "tiny", "data": DATA, "recipe": {"micro_batch": 4}},
    "accumulated": {"model": "tiny", "data": DATA, "gpus": 2, "recipe": {"micro_batch": 2, "accumulation": 5, "engine": "ddp"}},
    "sharded": {"model": "tiny", "data": DATA, "gpus": 2, "recipe": {"micro_batch": 2, "accumulation": 2, "engine": "fsdp"}},
}
HOPPER = "hopper"


@pytest.fixture(scope="module", params=JOBS)
def job(request: pytest.FixtureRequest) -> Job:
    return Job.model_validate({**JOBS[request.param], "machine": "hgx-h100"})


@pytest.fixture(scope="module")
def replayer(job: Job) -> Replayer:
    return Predictor().replayer(job, job.gpus)


@pytest.fixture(scope="module")
def script(replayer: Replayer) -> Script:
    found = replayer.scripts.varied(HOPPER)
    assert found is not None
    return found


def test_lengths_are_those_that_the_program_feeds(job: Job, replayer: Replayer) -> None:
    rows = Rows(job.data, job.recipe.micro_batch, 128, 0, job.gpus)
    count = ROWS // (job.recipe.micro_batch * job.gpus)
    fed = [rows.batch(number)["input_ids"].shape[1] for number in range(count)]
    assert replayer.lengths.in_order(count, job.gpus).tolist() == fed


def test_every_size_is_that_of_a_capture_of_its_length(job: Job, replayer: Replayer) -> None:
    # All rows but one of the second micro-batch have 96 tokens.
    rows = np.full(ROWS, 96)
    rows[job.recipe.micro_batch * job.gpus] = 256
    whole = varied(replayer.trace, _other(replayer), Lengths(rows, job.recipe.micro_batch, 256), HOPPER)
    assert whole is not None
    plain, trace = program(replayer.trace, HOPPER), replayer.trace
    there = Predictor().trace(job.model_copy(update={"data": job.data.model_copy(update={"max_length": 96})}), job.gpus)
    micro, step = (trace.instructions[name][plain.row] for name in ("micro", "step"))
    blocks = plain.target[(plain.action == ALLOC) & (micro == 0) & (step == 0)]
    blocks = blocks[plain.origin[blocks] >= 0]
    ours, real = whole.program.nbytes[blocks], there.storages["nbytes"][plain.origin[blocks]]
    assert (ours != plain.nbytes[blocks]).mean() > 0.3
    assert (ours == real).mean() > 0.9
    # Memory-efficient attention rounds its log-sum-exp up to whole blocks of 32 tokens.
    np.testing.assert_allclose(ours, real, rtol=32 / 96)


def test_one_micro_batch_is_at_the_cap_and_none_is_longer(replayer: Replayer, script: Script) -> None:
    plain, whole = program(replayer.trace, HOPPER), script.program
    ours = whole.origin >= 0
    assert (whole.nbytes[ours] <= np.maximum(replayer.trace.storages["nbytes"], _other(replayer).storages["nbytes"])[whole.origin[ours]]).all()
    grows = np.flatnonzero(ours & (replayer.trace.storages["nbytes"] != _other(replayer).storages["nbytes"])[np.maximum(whole.origin, 0)])
    largest = replayer.trace.storages["nbytes"][whole.origin[grows]]
    assert 0 < (whole.nbytes[grows] == largest).mean() < 0.5
    assert len(whole) > 2 * (len(plain) - script.last_step)


def test_what_is_no_row_stays_as_it_is(replayer: Replayer, script: Script) -> None:
    whole, storages = script.program, replayer.trace.storages
    fixed = (whole.origin >= 0) & (storages["nbytes"] == _other(replayer).storages["nbytes"])[np.maximum(whole.origin, 0)]
    np.testing.assert_array_equal(whole.nbytes[fixed], storages["nbytes"][whole.origin[fixed]])
    assert (storages["place"][np.maximum(whole.origin, 0)] == PLACE["gpu"])[whole.action[whole.born.clip(0, len(whole) - 1)] == 0].any()


def test_rows_of_one_length_have_no_such_script(replayer: Replayer) -> None:
    alike = Lengths(np.array([256, 256]), replayer.lengths.micro_batch, 256)
    assert varied(replayer.trace, _other(replayer), alike, HOPPER) is None


def test_captures_that_do_not_answer_to_each_other_have_none(replayer: Replayer) -> None:
    other = _other(replayer)
    place = other.storages["place"].copy()
    place[np.flatnonzero(place == PLACE["gpu"])[-1]] = PLACE["host"]
    moved = dataclasses.replace(other, storages={**other.storages, "place": place})
    assert varied(replayer.trace, moved, replayer.lengths, HOPPER) is None


class TestMemory:
    def test_reserved_is_the_larger_one_and_all_else_of_the_cap(self, job: Job, replayer: Replayer) -> None:
        machine = catalogue.machine("hgx-h100").with_gpus(job.gpus)
        when = pace(replayer.on(machine), replayer.trace)
        of_rows, of_cap = (gpu_memory(scripts, machine, AllocatorSettings(), pace=when) for scripts in (replayer.scripts, Scripts(replayer.trace)))
        assert (of_rows.varied, of_cap.varied) == (True, False)
        assert of_rows.allocated_peak == of_cap.allocated_peak
        assert of_rows.reserved_peak >= of_cap.reserved_peak >= of_cap.allocated_peak
        assert of_rows.used_peak - of_rows.reserved_peak == of_cap.used_peak - of_cap.reserved_peak
        assert of_rows.at_peak == of_cap.at_peak

    def test_rows_that_do_not_fit_are_named(self, job: Job, replayer: Replayer) -> None:
        machine = catalogue.machine("hgx-h100").with_gpus(job.gpus)
        whole = gpu_memory(replayer.scripts, machine, AllocatorSettings())
        outside = whole.used_peak - whole.reserved_peak
        hbm = machine.gpu.hbm.model_copy(update={"capacity": float(outside + whole.allocated_peak // 2)})
        small = machine.model_copy(update={"gpu": machine.gpu.model_copy(update={"hbm": hbm})})
        found = gpu_memory(replayer.scripts, small, AllocatorSettings())
        assert not found.fits
        assert found.why is not None
        assert "out of memory" in found.why


def _other(replayer: Replayer) -> Any:
    assert replayer.other is not None
    return replayer.other
