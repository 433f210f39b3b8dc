"""A predicted sweep: what can be asked, that each point is what it would be alone, and that nothing is captured or replayed twice."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from membound.cli import sweep_tables
from membound.errors import InputError, MemboundError
from membound.ghost.capture import Progress
from membound.replay.memory import replay
from membound.replay.predict_memory import memory_fits, memory_values
from membound.replay.predict_time import Timing, time_values
from membound.replay.side_by_side import on_each
from membound.replay.step import Played
from membound.replay.time import Replayer
from membound.run.schema import Value
from membound.spec import fields, jobfile
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.study.predicting import Predictor
from membound.study.sweep import values, workers
from membound.study.sweep.grid import Axis, numbers, unit_of, whole
from membound.study.sweep.predicting import MEMORY, Sweep, memory_key, predicted, sweep
from membound.study.sweep.table import as_csv
from membound.study.sweep.table import document as document_of
from membound.study.sweep.table import table as table_of
from membound.trace import cache
from membound.trace.schema import Trace

CLOCK = "machine.gpu.hbm.clock"


@pytest.fixture
def machine(tiny_job: Job) -> Machine:
    return jobfile.ask(tiny_job).machine


@pytest.fixture
def replayer(tiny_job: Job, tiny_trace: Trace) -> Replayer:
    return Predictor().replayer(tiny_job, 1)


@pytest.fixture
def small(tiny_job: Job, tiny_trace: Trace) -> Sweep:
    """Two clocks by three capacities, one of which is too small."""
    return predicted(tiny_job, {CLOCK: ["5 GHz", "10 GHz"], "machine.gpu.hbm.capacity": ["300 MiB", "12 GiB", "24 GiB"]})


class TestGrid:
    def test_values_are_read_as_in_a_job_file(self) -> None:
        axis = Axis.parse("recipe.offload={optimizer: cpu, params: none}, {optimizer: none}")
        assert axis.values == ({"optimizer": "cpu", "params": "none"}, {"optimizer": "none"})
        assert Axis.parse("recipe.micro_batch=1,2,4") == Axis("recipe.micro_batch", (1, 2, 4))
        assert Axis.parse("recipe.lora.targets=[q_proj, v_proj],all-linear").values == (["q_proj", "v_proj"], "all-linear")

    def test_the_first_axis_varies_slowest(self, tiny_job: Job) -> None:
        grid = whole(tiny_job, {"gpus": [1, 2], CLOCK: ["1 GHz", "2 GHz"]})
        assert [tuple(point.values()) for point in grid.points()] == [(1, "1 GHz"), (1, "2 GHz"), (2, "1 GHz"), (2, "2 GHz")]

    def test_a_point_is_what_the_same_changes_make_of_the_job_file(self, tiny_job: Job) -> None:
        grid = whole(tiny_job, {CLOCK: ["5 GHz"], "recipe.micro_batch": [3], "machine": ["h200"]}, changes={"gpu.hbm.capacity": "1 TiB"})
        (point,) = grid.points()
        asked = grid.asked(point)
        assert (asked.job.recipe.micro_batch, asked.machine.name) == (3, "h200")
        assert (asked.machine.gpu.hbm.clock, asked.machine.gpu.hbm.capacity) == (5e9, 2**40)

    @pytest.mark.parametrize(
        ("over", "told"),
        [
            ({}, "--over: '': write KEY=VALUE,VALUE"),
            ({CLOCK: []}, "--over: 'machine.gpu.hbm.clock': has no values"),
            ({CLOCK: ["1 GHz", "1 GHz"]}, "name each value once"),
            ({CLOCK: ["1593 MB"]}, "machine.gpu.hbm.clock: '1593 MB': write a quantity such as '2619 MHz'"),
            ({"machine.gpu.hbm.clok": ["1 GHz"]}, "machine.gpu.hbm.clok: '1 GHz': unknown key; did you mean clock?"),
            ({"machine.gpu.hbm.clock.mhz": [1]}, "machine.gpu.hbm.clock has no parts"),
            ({"machine": ["hgx-h10"]}, "machine: 'hgx-h10': did you mean"),
            ({"model": ["tinny"]}, "model: 'tinny': did you mean tiny"),
            ({"recipe.micro_bacth": [1]}, "recipe.micro_bacth: 1: unknown key; did you mean micro_batch?"),
            ({"recipe.micro_batch": [1.5]}, "recipe.micro_batch: 1.5: must be a valid integer"),
            ({"recipe.optimizer": ["adamw", "adamv"]}, "recipe.optimizer: 'adamv': not one of the choices; did you mean adamw?"),
            ({"machine.gpu.hbm.capacity": range(1, 400), CLOCK: range(1, 400)}, "'159,201 points': ask for 100,000 at most"),
            ({"machine.gpu.hbm.capacity": ["1 GiB"]}, "give each field once"),
        ],
    )
    def test_what_cannot_be_asked_at_all_is_refused_at_once(self, tiny_job: Job, over: dict[str, Sequence[object]], told: str) -> None:
        with pytest.raises(InputError) as refused:
            whole(tiny_job, over, changes={"gpu.hbm.capacity": "2 GiB"} if told == "give each field once" else None)
        assert told in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_a_machine_is_named_once(self, tiny_job: Job) -> None:
        with pytest.raises(InputError, match="leave it out"):
            whole(tiny_job, {"machine": ["h200"]}, machine="h100-sxm")

    @pytest.mark.parametrize(
        ("key", "unit"),
        [
            (CLOCK, "Hz"), ("machine.links.nvlink", "B/s"), ("machine.host.nvme.read", "B/s"), ("recipe.micro_batch", ""), ("gpus", ""),
            ("machine", None), ("recipe.optimizer", None), ("machine.host.dimms.speed_1dpc", "T/s"), ("recipe.lora.alpha", ""),
        ],
    )  # fmt: skip
    def test_each_field_has_its_unit(self, key: str, unit: str | None) -> None:
        assert unit_of(key) == unit

    def test_numbers_are_si(self) -> None:
        assert numbers(Axis(CLOCK, ("1593 MHz", 2e9))) == (1.593e9, 2e9)
        assert numbers(Axis("machine.links.nvlink", ("1 GB/s", None))) is None


def values_alone(replayer: Replayer, machine: Machine) -> dict[str, Any]:
    return time_values(Timing.of(replayer.on(machine), machine))


def leaves(value: BaseModel, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a Machine, by its dotted field."""
    for name in type(value).model_fields:
        inner = getattr(value, name)
        if isinstance(inner, BaseModel):
            yield from leaves(inner, f"{path}{name}.")
        elif isinstance(inner, int | float) and not isinstance(inner, bool):
            yield f"{path}{name}", inner


def clocked(machine: Machine, count: int) -> list[Machine]:
    """`machine` at so many clocks of its HBM."""
    return [fields.with_values(machine, {"gpu.hbm.clock": 1e9 + number * 1e7}) for number in range(count)]


class TestEqualToEachAlone:
    @pytest.mark.parametrize(
        "changes",
        [
            {"gpu.hbm.clock": ["5 GHz", "10.5 GHz", "20 GHz"]},
            {"gpu.l2": ["1 MiB", "72 MiB"], "gpu.hbm.clock": ["1 GHz", "9 GHz"]},  # another L2: another workload
            {"host.dimms.speed_1dpc": ["1 GT/s"], "links.pcie.bandwidth": ["1 MB/s", "30 GB/s"]},
        ],
        ids=lambda changes: "+".join(changes),
    )
    def test_on_machines_of_one_kind(self, replayer: Replayer, machine: Machine, changes: dict[str, list[str]]) -> None:
        combinations = [dict(zip(changes, values, strict=True)) for values in itertools.product(*changes.values())]
        machines = [fields.with_values(machine, each) for each in combinations]
        for each, played in zip(machines, on_each(replayer, machines), strict=True):
            assert isinstance(played, Played)
            alone = replayer.on(each)
            assert (played.step == alone.step).all()
            assert (played.parts == alone.parts).all()
            assert played.sensitivity == alone.sensitivity

    def test_a_board_that_is_held_back_is_priced_at_the_clock_it_falls_to(self, tiny_job: Job, replayer: Replayer) -> None:
        machine = jobfile.ask(tiny_job.model_copy(update={"machine": "h100-sxm"})).machine
        machines = [fields.with_values(machine, {"gpu.power.limit": limit}) for limit in ("100 W", "700 W")]
        held, free = on_each(replayer, machines)
        assert isinstance(held, Played)
        assert isinstance(free, Played)
        assert held.prices.table[0].sum() > free.prices.table[0].sum()
        assert (held.step == replayer.on(machines[0]).step).all()

    def test_on_machines_of_several_catalogue_entries(self, tiny_job: Job, replayer: Replayer) -> None:
        machines = [
            jobfile.ask(tiny_job.model_copy(update={"machine": name})).machine for name in ("h100-sxm", "rtx-3090", "h200", "mi300x", "h100-sxm")
        ]
        for each, played in zip(machines, on_each(replayer, machines), strict=True):
            assert isinstance(played, Played)
            assert (played.step == replayer.on(each).step).all()

    def test_a_points_values_are_those_of_predict(self, replayer: Replayer, machine: Machine) -> None:
        alone, priced = values_alone(replayer, machine), values.of(replayer.on(machine), machine)
        averaged = {"gpu.power.mean", "gpu.energy.step"}
        assert {name: priced.values[name] for name in set(values.NAMES) - averaged} == {name: alone[name] for name in set(values.NAMES) - averaged}
        for name in averaged:
            ours = priced.values[name]
            assert isinstance(ours, Value)
            # Averaged by phase rather than over a drawn stretch of the run.
            assert ours.value == pytest.approx(alone[name].value, rel=0.02)
            assert ours.unit == alone[name].unit

    def test_several_processes_say_the_same_in_the_same_order(self, replayer: Replayer, machine: Machine) -> None:
        machines = clocked(machine, 100)
        heard: list[int] = []
        many, one = workers.price(replayer, machines, heard.append, 2), workers.price(replayer, machines, heard.append, 1)
        assert many == one
        assert sum(heard) == 200

    def test_a_process_that_dies_is_an_error_of_one_line(self, replayer: Replayer, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers.sys, "executable", "/bin/false")
        with pytest.raises(MemboundError, match="ended before its work did, with status 1"):
            workers.price(replayer, clocked(machine, 100), lambda more: None, 2)

    def test_machines_that_differ_only_in_what_their_memory_holds_are_priced_once(
        self, replayer: Replayer, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machines = [fields.with_values(each, {"gpu.hbm.capacity": size}) for each in clocked(machine, 3) for size in ("8 GiB", "24 GiB", "1 TiB")]
        alone = [values.of(replayer.on(each), each) for each in machines]
        priced: list[Machine] = []
        monkeypatch.setattr(workers, "batches", lambda replayer, some: [priced.extend(some) or [values.of(replayer.on(each), each) for each in some]])
        heard: list[int] = []
        assert workers.price(replayer, machines, heard.append, 1) == alone
        assert (len(priced), sum(heard)) == (3, 9)

    @pytest.mark.parametrize("name", ["rtx-4090", "h100-sxm", "mi300x"])
    def test_time_is_worked_out_anew_for_whatever_it_depends_on(self, tiny_job: Job, replayer: Replayer, name: str) -> None:
        machine = jobfile.ask(tiny_job.model_copy(update={"machine": name})).machine
        changed = [fields.with_values(machine, {field: number * 2}) for field, number in leaves(machine) if field.startswith("gpu.hbm.")]
        alike = [each for each in changed if workers.time_key(each) == workers.time_key(machine)]
        assert [each.gpu.hbm.capacity for each in alike] == [2 * machine.gpu.hbm.capacity]
        assert values.of(replayer.on(alike[0]), alike[0]) == values.of(replayer.on(machine), machine)

    def test_memory_is_replayed_anew_for_whatever_it_depends_on(self, tiny_trace: Trace, machine: Machine) -> None:
        def held(on: Machine) -> object:
            memory = replay(tiny_trace, on)
            return memory_fits(memory), memory_values(memory, tiny_trace, on)

        alike = 0
        for name, number in leaves(machine):
            try:
                changed = fields.with_values(machine, {name: number * 2})
            except InputError:
                continue  # such as more modules than the board has places for
            if memory_key(changed) == memory_key(machine):
                assert held(changed) == held(machine), name
                alike += 1
        assert alike > 20  # clocks, peaks, bandwidths and the like


class TestSweep:
    def test_it_holds_a_point_per_combination_with_verdict_speed_and_bound(self, small: Sweep) -> None:
        assert [tuple(point.at.values()) for point in small.points] == list(itertools.product(["5 GHz", "10 GHz"], ["300 MiB", "12 GiB", "24 GiB"]))
        assert [point.fits is not None and point.fits.gpu for point in small.points] == [False, True, True] * 2
        for point in small.points:
            assert point.priced is not None  # also where it does not fit
            assert set(point.priced.values) == set(values.NAMES)
            assert point.memory is not None
            assert set(point.memory) == set(MEMORY)
            assert sum(point.priced.sensitivity.values()) == pytest.approx(1.0)
            assert point.priced.sensitivity[point.priced.bound] == max(point.priced.sensitivity.values())

    def test_its_memory_is_that_of_predict(self, small: Sweep, tiny_job: Job, tiny_trace: Trace) -> None:
        grid = whole(tiny_job, {axis.key: axis.values for axis in small.axes})
        for point in small.points:
            machine = grid.asked(point.at).machine
            memory = replay(tiny_trace, machine)
            assert point.fits == memory_fits(memory)
            assert point.memory == {name: memory_values(memory, tiny_trace, machine)[name] for name in MEMORY}

    def test_gains_are_over_the_first_point_that_is_priced(self, tiny_job: Job, tiny_trace: Trace) -> None:
        found = predicted(tiny_job, {"gpus": [2, 1], CLOCK: ["1 MHz", "1 GHz"]})
        refused, (first, second) = found.points[:2], found.points[2:]
        assert all("2 GPUs need ddp, fsdp or deepspeed" in str(point.refused) and point.gain is None for point in refused)
        rates = [point.priced.values["tokens.rate.useful"].value for point in (first, second) if point.priced is not None]  # type: ignore[union-attr]
        assert (first.gain, second.gain) == (0.0, pytest.approx(rates[1] / rates[0] - 1))
        assert second.gain is not None
        assert second.gain > 0

    def test_a_sweep_of_refused_points_alone_is_an_error_of_one_line(self, tiny_job: Job) -> None:
        with pytest.raises(MemboundError, match=r"no point of this sweep can be asked; the first: .*2 GPUs need"):
            predicted(tiny_job, {"gpus": [2, 4]})

    def test_hardware_is_priced_from_one_capture_and_jobs_from_one_each(
        self, tiny_job: Job, tiny_config: dict[str, Any], tiny_trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A cache of its own: other tests put Traces into the session's meanwhile.
        monkeypatch.setenv("MEMBOUND_CACHE", str(tmp_path))
        kept = cache.TraceCache(tmp_path)
        kept.put(cache.key(tiny_job, tiny_config, 1), tiny_trace)
        heard: list[Progress] = []
        predictor = Predictor(progress=heard.append)
        sweep(whole(tiny_job, {CLOCK: ["1 GHz", "2 GHz"], "machine": ["rtx-4090", "h200"]}), predictor)
        assert heard == []  # the one Trace is kept already
        sweep(whole(tiny_job, {"recipe.max_grad_norm": [1.0, 3.25], CLOCK: ["1 GHz", "2 GHz"]}), predictor)
        assert kept.usage()[0] == 2
        assert [each.stage for each in heard].count("starting") == 1

    @pytest.mark.parametrize("key", [CLOCK, "machine.gpu.clock.boost", "machine.links.pcie.bandwidth"])
    def test_faster_parts_are_never_slower(self, tiny_job: Job, tiny_trace: Trace, key: str) -> None:
        number = dict(leaves(jobfile.ask(tiny_job).machine))[key.removeprefix("machine.")]
        found = predicted(tiny_job, {key: [number * factor for factor in (0.01, 0.1, 1.0, 10.0)]})
        steps = [point.priced.values["step.time"].value for point in found.points if point.priced is not None]  # type: ignore[union-attr]
        # A step is a sum over its segments: what one gains another may lose, to the last digit.
        assert all(after <= before * (1 + 1e-14) for before, after in itertools.pairwise(steps))


class TestTables:
    def test_the_document_is_json_and_holds_every_point(self, small: Sweep) -> None:
        document = json.loads(json.dumps(document_of(small), allow_nan=False))
        assert (document["schema"], document["origin"], document["job"]["model"]) == (1, "predicted", "tiny")
        assert [axis["unit"] for axis in document["axes"]] == ["Hz", "B"]
        assert document["points"][0]["at"] == dict(small.points[0].at)
        step = document["points"][0]["values"]["step.time"]
        assert step["low"] <= step["value"] <= step["high"]
        assert document["points"][0]["fits"]["gpu"] is False

    def test_the_table_has_units_in_its_heads_and_null_for_what_is_not_there(self, tiny_job: Job, tiny_trace: Trace) -> None:
        table = table_of(predicted(tiny_job, {"gpus": [1, 2], CLOCK: ["1 GHz"]}))
        rows = table.to_pylist()
        assert rows[0]["machine.gpu.hbm.clock_Hz"] == 1e9
        assert rows[0]["step.time_s"] > 0
        assert rows[1]["step.time_s"] is None
        assert "2 GPUs need" in rows[1]["refused"]
        assert len(as_csv(table).decode().splitlines()) == 3

    def test_files(self, small: Sweep, tmp_path: Any) -> None:
        for _ in range(2):
            sweep_tables.write(small, tmp_path / "out")
        table = pq.read_table(tmp_path / "out" / "sweep.parquet")
        assert table.num_rows == 6
        assert table.column("bound").to_pylist() == [point.priced.bound for point in small.points if point.priced is not None]
        assert {path.name for path in (tmp_path / "out").iterdir()} == {f"sweep.{kind}" for kind in ("parquet", "csv", "json", "svg", "png")}

    def test_the_figure_has_a_line_per_value_of_the_other_axes(self, small: Sweep) -> None:
        drawing = sweep_tables.drawn(small)
        assert (drawing.x, drawing.unit) == ((5e9, 10e9), "Hz")
        assert [line.name for line in drawing.lines] == ["capacity 300 MiB", "capacity 12 GiB", "capacity 24 GiB"]
        assert [line.fits for line in drawing.lines] == [(False, False), (True, True), (True, True)]

    def test_axes_are_named_as_shortly_as_tells_them_apart(self) -> None:
        keys = (CLOCK, "machine.gpu.clock.boost", "machine.host.clock", "recipe.micro_batch")
        assert list(sweep_tables.names([Axis(key, (1,)) for key in keys]).values()) == ["hbm.clock", "boost", "host.clock", "micro_batch"]


class TestMemoryThatStreamsShare:
    """ZeRO-3 frees on one stream what another fetched: memory may hang on how far the host is ahead, and so on the machine."""

    @pytest.fixture
    def zero3(self) -> Job:
        recipe = {"engine": "deepspeed", "zero_stage": 3, "micro_batch": 2}
        return Job.model_validate({"model": "tiny", "data": {"seq_len": 64}, "recipe": recipe, "gpus": 2, "machine": "hgx-h100"})

    def test_each_point_is_what_its_machine_would_be_alone(self, zero3: Job) -> None:
        times = ["0.01", "0.45", "40"]
        found = predicted(zero3, {"machine.host.call_time": times})
        for point, time in zip(found.points, times, strict=True):
            machine = fields.with_values(jobfile.ask(zero3).machine, {"host.call_time": float(time)}, "machine")
            alone = Predictor().predict(zero3, machine).run
            assert point.memory is not None
            assert point.memory == {name: alone.values[name] for name in MEMORY}
            assert point.fits == alone.fits

    def test_what_it_does_not_hang_on_is_replayed_twice_at_most(self, tiny_job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = tiny_job.model_copy(update={"gpus": 2, "machine": "hgx-h100", "recipe": tiny_job.recipe.model_copy(update={"engine": "ddp"})})
        seen: list[str] = []

        def counted(trace: Trace, machine: Machine, *rest: Any) -> Any:
            seen.append(machine.name)
            return replay(trace, machine, *rest)

        monkeypatch.setattr("membound.study.sweep.predicting.replay", counted)
        found = predicted(asked, {CLOCK: [f"{n} GHz" for n in range(1, 9)]})
        assert len(found.points) == 8
        assert len(seen) <= 2
