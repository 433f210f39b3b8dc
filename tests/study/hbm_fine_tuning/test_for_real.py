"""The study with --measure: what a machine can run is chosen by what it has, measured once, outlives a kill, and is never compared with unlike."""

from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from membound.cli import report_study, study_measuring
from membound.cost import profile
from membound.errors import InputError, MeasureError, UnknownNameError
from membound.measure import door, marks
from membound.measure.place import Place
from membound.measure.plan import Options
from membound.measure.source import Fault, Source
from membound.report.charts.bars import Bars
from membound.report.charts.data import Noted
from membound.report.charts.table import Table
from membound.report.charts.time_series import TimeSeries
from membound.report.page.html import html
from membound.run.schema import Missing, Run, Value
from membound.spec import catalogue
from membound.spec.job import Job
from membound.spec.lengths import ROWS
from membound.study.hbm_fine_tuning import choosing, clocks, for_real, here, measured, measurements, page
from membound.study.hbm_fine_tuning.book import Book
from membound.study.hbm_fine_tuning.here import Here
from membound.study.hbm_fine_tuning.lasting import FEWEST, MOST, how_long
from membound.study.hbm_fine_tuning.measurements import Measured, Measurements, measure_all
from membound.study.hbm_fine_tuning.plan import Plan, Point, plan
from membound.study.hbm_fine_tuning.runner import Ran
from tests.report.page.conftest import make_run
from tests.study.hbm_fine_tuning import study_runs

PLAN = plan()
FAST, SLOW = 2619e6, 1593e6
HGX = Here.of(Source("h100-sxm", gpus=8))
ONE = Here.of(Source("h100-sxm", gpus=1))
PAIR = Here.of(Source("h100-sxm"))


def chosen(machine: Here, runs: Mapping[str, Run] | None = None) -> dict[str, choosing.Choice]:
    return {each.point.name: each for each in choosing.choose(choosing.with_own(PLAN, machine), machine, runs or {}, 12)}


class TestHere:
    """A recorded machine answers as a real one does."""

    def test_it_is_known_by_what_its_driver_says(self) -> None:
        assert (ONE.machine, PAIR.machine, HGX.machine) == ("h100-sxm", "hgx-h100", "hgx-h100")
        assert (len(PAIR.gpus), PAIR.clock, PAIR.modules) == (2, FAST, None)
        assert PAIR.host_memory == pytest.approx(270e9, rel=0.01)

    def test_without_a_gpu_one_line_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(InputError, match="no NVIDIA GPU: leave the option out") as refused:
            Here.of()
        assert "\n" not in str(refused.value)

    def test_an_idle_gpus_clock_is_not_taken_for_the_one_under_load(self) -> None:
        idle = Here.of(Source("h100-sxm", gpus=1, faults=(Fault("not_supported", "clock.memory"),)))
        assert idle.clock == FAST

    def test_a_machine_in_no_catalogue_can_be_named(self) -> None:
        assert Here.of(Source("synthetic-h100")).machine is None
        assert Here.of(Source("synthetic-h100"), "h100-sxm").machine == "h100-sxm"

    def test_packages_are_looked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(here, "_installed", lambda name: name == "peft")
        assert here.missing_packages(PLAN.points["llama-65b-qlora.2619"].job) == ("bitsandbytes",)
        assert here.missing_packages(PLAN.points["llama-7b.2619"].job) == ("deepspeed",)
        assert here.missing_packages(PLAN.points["resnet-50.2619"].job) == ()


class TestChoosing:
    def test_the_reports_machine_measures_what_runs_at_its_clock(self) -> None:
        found = chosen(HGX)
        assert found.keys() == PLAN.points.keys()
        assert {name for name in found if name.endswith(".2619")} <= {name for name, each in found.items() if each.measured}
        assert not any(each.measured for name, each in found.items() if not choosing.same_clock(each.point.machine.gpu.hbm.clock, FAST))
        assert found["llama-7b.1593"].why == "is at 1593 MHz, memory runs at 2619 MHz here, and a study switches no clock"
        assert "another HBM" in found["llama-65b-zero3.120gb"].why

    def test_host_modules_must_be_those_of_the_run(self) -> None:
        name, size = "llama-33b.dimm-96gb-2dpc", 96 * 2.0**30
        assert "firmware does not tell" in chosen(HGX)[name].why
        for modules, measured_ in (((size,) * 32, True), ((size,) * 16, False), ((size / 2,) * 32, False)):
            assert chosen(dataclasses.replace(HGX, modules=modules))[name].measured is measured_

    @pytest.mark.parametrize(("machine", "gpus"), [(ONE, 1), (PAIR, 2)])
    def test_a_smaller_machine_has_runs_of_its_own(self, machine: Here, gpus: int) -> None:
        found = chosen(machine)
        assert found["llama-7b.2619"].why == f"needs 8 GPUs, this machine has {gpus}"
        own = {name: each for name, each in found.items() if name.endswith(".here")}
        assert own.keys() >= {"llama-7b.here", "llama-65b-qlora.here", "resnet-50.here"}
        assert all(each.measured and each.point.job.gpus == gpus and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) for name, each in own.items())

    def test_another_kind_of_gpu_is_no_stand_in(self) -> None:
        found = chosen(dataclasses.replace(HGX, gpus=("NVIDIA A100-SXM4-80GB",) * 8, machine="hgx-a100-80gb", clock=1593e6))
        assert "is of h100-sxm, this machine has a100-sxm-80gb" in found["llama-7b.1593"].why
        assert found["llama-7b.here"].point.machine.gpu.name == "a100-sxm-80gb"

    def test_what_is_predicted_not_to_fit_is_not_tried(self) -> None:
        fitting, name = study_runs.stand_in(PLAN.points["llama-65b.2619"]), "llama-65b.2619"
        assert "may need" in chosen(HGX, {name: with_value(fitting, "host.memory.used.peak", 2e12)})[name].why
        small = chosen(HGX, {name: with_value(fitting, "host.memory.used.peak", 1e11)})[name]
        assert (small.measured, small.why) == (True, "predicted to fit; 12 steps to take 105 s after loading")
        full = dataclasses.replace(fitting, fits=dataclasses.replace(fitting.fits, gpu=False, why="needs 90 GiB"))
        assert chosen(HGX, {name: full})[name].why == "predicted not to fit: needs 90 GiB"


class TestHowLong:
    def test_counted_steps_fill_some_seconds(self) -> None:
        job = tiny_plan().points["tiny.2619"].job
        assert [how_long(job, seconds, None) for seconds in (None, 0.001, 0.1, 30.0)] == [3 + FEWEST, 3 + MOST, 3 + 100, 3 + FEWEST]
        assert how_long(job, 0.1, 12) == 12

    def test_rows_that_vary_are_all_met_before(self) -> None:
        job = PLAN.points["llama-7b.2619"].job
        rows = job.recipe.micro_batch * job.recipe.accumulation * job.gpus
        before = how_long(job, None, None) - FEWEST
        assert before * rows >= ROWS > (before - 1) * rows
        fewer = job.model_copy(update={"gpus": 2})
        assert how_long(fewer, None, None) - FEWEST == 4 * before


def with_value(run: Run, name: str, number: float) -> Run:
    return dataclasses.replace(run, values={**run.values, name: Value(number, run.values[name].unit, number, number, "")})  # type: ignore[union-attr]


def tiny_plan() -> Plan:
    """A tiny job on one H100 at the report's two clocks; the same job and clock under a second name; and rows of another length."""
    machine = catalogue.machine("h100-sxm")
    slow = machine.model_copy(update={"gpu": machine.gpu.model_copy(update={"hbm": machine.gpu.hbm.model_copy(update={"clock": SLOW})})})
    job = Job.model_validate({"model": "tiny", "data": {"seq_len": 256}, "recipe": {"micro_batch": 2}, "machine": "h100-sxm"})
    longer = job.model_copy(update={"data": job.data.model_copy(update={"seq_len": 264})})
    points = [
        Point(name, name.partition(".")[0], name, "test", job_, machine_)
        for name, job_, machine_ in (
            ("tiny.1593", job, slow),
            ("tiny.2619", job, machine),
            ("again.2619", job, machine),
            ("long.2619", longer, machine),
        )
    ]
    return Plan({point.name: point for point in points}, {}, {})


def into(folder: Path, steps: int = 10) -> Measurements:
    """Measures on the processors; the sampler asks a recorded H100."""
    return Measurements(folder, ONE, Options(warm_up=1), steps)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Measured]:
    """Two points of one job, measured once."""
    folder = tmp_path_factory.mktemp("measured")
    points = tiny_plan().points
    return folder, measure_all([points["tiny.2619"], points["again.2619"]], into(folder))


class TestMeasuring:
    def test_a_job_is_measured_once_for_all_its_names(self, done: tuple[Path, Measured]) -> None:
        folder, found = done
        assert (found.failed, found.made, found.stopped) == ({}, 1, None)
        assert found.runs["tiny.2619"] is found.runs["again.2619"]
        assert [path.name for path in folder.iterdir()] == ["tiny.2619.measured"]
        run = found.runs["tiny.2619"]
        assert (run.origin, measurements.memory_clock(run)) == ("measured", FAST)
        assert run.number("step.time")

    def test_what_was_measured_is_found_again(self, done: tuple[Path, Measured]) -> None:
        folder, points = done[0], tiny_plan().points
        again = measure_all([points["tiny.2619"]], into(folder), others=[points["tiny.1593"]])
        assert (again.made, again.runs.keys()) == (0, {"tiny.2619"})
        assert into(folder, steps=41).read(points["tiny.2619"]) is None

    def test_a_run_at_another_clock_is_not_the_one_that_was_asked_for(self, tmp_path: Path) -> None:
        found = measure_all([tiny_plan().points["tiny.1593"]], into(tmp_path))
        assert "memory ran at 2619 MHz, not at the 1593 MHz" in found.failed["tiny.1593"]
        assert into(tmp_path).read(tiny_plan().points["tiny.1593"]) is None

    def test_one_that_fails_leaves_the_others(self, done: tuple[Path, Measured], monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: Any, **more: Any) -> Run:
            raise MeasureError("rank 0 failed in forward")

        monkeypatch.setattr(door, "measure", fail)
        points, heard = tiny_plan().points, []
        found = measure_all([points["long.2619"], points["tiny.2619"]], into(done[0]), heard.append)
        assert (found.failed, found.runs.keys()) == ({"long.2619": "rank 0 failed in forward"}, {"tiny.2619"})
        assert "failed: long.2619: rank 0 failed in forward" in heard

    def test_one_that_outlasts_its_time_is_no_answer(self, tmp_path: Path) -> None:
        limited = dataclasses.replace(into(tmp_path, 100_000), options=Options(warm_up=1, time_limit=8.0))
        found = measure_all([tiny_plan().points["tiny.2619"]], limited)
        assert found.failed == {"tiny.2619": "ended after its time limit of 8 s"}
        assert (limited.read(tiny_plan().points["tiny.2619"]), found.stopped) == (None, None)

    def test_the_quickest_is_measured_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        seen: list[str] = []
        monkeypatch.setattr(for_real, "measure_all", lambda points, *rest: seen.extend(each.name for each in points) or Measured())
        plan, seconds = tiny_plan(), {"tiny.2619": 2.0, "again.2619": 3.0, "long.2619": 1.0}
        runs = {name: with_value(study_runs.stand_in(point), "step.time", seconds.get(name, 0.5)) for name, point in plan.points.items()}
        monkeypatch.setattr(for_real.runner, "run", lambda *rest: Ran(runs, {}, 0))
        for_real.run(plan, tmp_path, into(tmp_path))
        assert seen == ["long.2619", "tiny.2619", "again.2619"]

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
    def test_a_study_that_is_ended_goes_on_where_it_was(self, number: signal.Signals, done: tuple[Path, Measured], tmp_path: Path) -> None:
        program = """
import sys
from pathlib import Path
from membound.study.hbm_fine_tuning.measurements import measure_all
from tests.study.hbm_fine_tuning.test_for_real import into, tiny_plan

points = tiny_plan().points
found = measure_all([points["tiny.2619"], points["long.2619"]], into(Path(sys.argv[1])), print)
print("stopped", found.stopped, list(found.runs), flush=True)
"""
        root, place = Path(__file__).resolve().parents[3], Place(tmp_path / "long.2619.measured")
        (tmp_path / "tiny.2619.measured").symlink_to(done[0] / "tiny.2619.measured")
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root) as child:
            wait_for_step(place, child)
            child.send_signal(number)
            said, _ = child.communicate()
        if number == signal.SIGINT:
            assert said.splitlines()[-1] == "stopped 2 ['tiny.2619']"
        assert place.unfinished() is (number == signal.SIGKILL)
        points = tiny_plan().points
        again = measure_all([points["tiny.2619"], points["long.2619"]], into(tmp_path))
        assert (again.made, again.failed, again.runs.keys()) == (1, {}, {"tiny.2619", "long.2619"})


def wait_for_step(place: Place, child: subprocess.Popen[str]) -> None:
    path = marks.file_of(place.marks, 0)
    while not (path.is_file() and '"what":"step"' in path.read_text().replace(" ", "")):
        assert child.poll() is None
        time.sleep(0.05)


class TestForReal:
    def test_all_is_predicted_and_what_can_be_is_measured(self, done: tuple[Path, Measured], tmp_path: Path) -> None:
        # What was measured above lies where this study keeps its runs.
        (tmp_path / "study").mkdir()
        (tmp_path / "study" / "runs").symlink_to(done[0])
        few = Plan({name: tiny_plan().points[name] for name in ("tiny.1593", "tiny.2619")}, {}, {})
        told = study_measuring.text(for_real.rehearse(few, tmp_path / "study", ONE), ONE)
        assert "Measured, 1 of 2 runs:\n  tiny.2619" in told
        assert "  is at 1593 MHz, memory runs at 2619 MHz here, and a study switches no clock:\n    tiny.1593\n" in told
        book, found = for_real.run(few, tmp_path / "study", into(done[0]))
        assert (found.made, book.runs.keys(), book.measured.keys()) == (0, few.points.keys(), {"tiny.2619"})
        assert book.why_predicted.keys() == {"tiny.1593"}
        table = measured.table(book)
        assert (len(table.rows), table.says[:19]) == (1, "1 job was measured;")

    def test_the_dry_run_as_json_names_every_run(self) -> None:
        document = study_measuring.document(list(chosen(HGX).values()), HGX)
        assert document["machine"]["catalogue"] == "hgx-h100"
        assert {each["origin"] for each in document["runs"].values()} == {"measured", "predicted"}
        assert all(each["why"] for each in document["runs"].values())

    def test_options_that_only_measuring_has_are_refused_without_it(self, tmp_path: Path) -> None:
        one = [{"dry_run": True}, {"steps": 3}, {"machine": "h200"}, {"weights": "gpu"}, {"job_time": "5 min"}]
        for measuring in (report_study.Measuring(**each) for each in one):
            with pytest.raises(InputError, match="goes with --measure"):
                report_study.run(tmp_path, False, measuring)

    def test_a_machine_that_was_not_calibrated_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        choices = list(chosen(ONE).values())
        assert study_measuring.text(choices, ONE).rstrip().endswith(study_measuring.UNCALIBRATED)
        shipped = Path(profile.__file__).parent / "data" / "profiles" / "h100-sxm.yaml"
        (tmp_path / shipped.name).write_text(shipped.read_text())
        monkeypatch.setenv("MEMBOUND_PROFILES", str(tmp_path))
        assert ONE.calibrated
        assert study_measuring.UNCALIBRATED not in study_measuring.text(choices, ONE)

    def test_how_a_job_is_measured_is_what_the_options_say(self) -> None:
        options = report_study.Measuring(True, steps=30, weights="gpu", job_time="5 min").options()
        assert (options.steps, options.weights, options.time_limit) == (30, "gpu", 300.0)
        with pytest.raises(UnknownNameError, match="--weights"):
            report_study.Measuring(True, weights="disk").options()
        with pytest.raises(InputError, match="--job-time"):
            report_study.Measuring(True, job_time="soon").options()

    def test_where_there_is_no_gpu_one_line_says_so(self) -> None:
        command = [sys.executable, "-m", "membound", "study", "hbm-fine-tuning", "--measure", "--dry-run"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "", "CUDA_VISIBLE_DEVICES": ""})
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"membound: --measure: 'hbm-fine-tuning': this machine shows no NVIDIA GPU: .*\n", done.stderr)


def measured_book(names: set[str], failed: Mapping[str, str] | None = None, **values: Missing) -> Book:
    """The study by hand, the runs called `names` measured: 20 % faster than predicted, 2 s of loading before the first step."""
    runs = {name: study_runs.stand_in(point) for name, point in PLAN.points.items()}
    theirs = {}
    for name in names:
        run = dataclasses.replace(make_run(gpus=2, seconds=12), values=dict(runs[name].values), job=runs[name].job, machine=runs[name].machine)
        run = with_value(run, "tokens.rate", 1.2 * (run.number("tokens.rate") or 0.0))
        theirs[name] = dataclasses.replace(run, values={**run.values, **values}, about={"options": {"warm_up": 1, "steps": 6}})
    why = {name: "is at another clock" for name in PLAN.points if name not in names}
    return Book.of(PLAN, Ran(runs, {}, 0), Measured(theirs, dict(failed or {})), why)


AT_2619 = {name for name in PLAN.points if name.endswith(".2619")}


class TestPage:
    def test_unlike_things_are_not_compared(self) -> None:
        mixed = {each.claim.id: each for each in measured_book(AT_2619).agreements}
        whole = {each.claim.id: each for each in measured_book(AT_2619 | {"llama-7b.1593"}).agreements}
        # Both clocks are needed for a gain: with one of them measured it is of two predicted runs.
        assert (mixed["gain-7b"].origin, whole["gain-7b"].origin) == ("predicted", "measured")
        assert mixed["gain-7b"].ratio == pytest.approx(whole["gain-7b"].ratio)
        assert mixed["llama-7b-2619 gpu.busy"].origin == "measured"
        assert len(mixed) == len(whole) == len(study_runs.book().agreements)

    def test_what_could_not_be_measured_of_a_measured_run_is_predicted(self) -> None:
        book = measured_book(AT_2619, **{"hbm.utilisation.mean": Missing("no counter")})
        found = {each.claim.id: each for each in book.agreements}
        assert found["llama-7b-2619 hbm.utilisation.mean"].origin == "predicted"
        assert book.alike(["llama-7b.2619"], "hbm.utilisation.mean") is book
        assert book.alike(["llama-7b.2619"], "gpu.busy").runs["llama-7b.2619"].origin == "measured"

    def test_what_the_host_holds_while_loading_is_not_compared_where_it_loads_nothing(self) -> None:
        book = measured_book({"llama-7b.2619"})
        run = book.measured["llama-7b.2619"]
        quick = dataclasses.replace(run, about={**run.about, "options": {**run.about["options"], "weights": "gpu"}})
        cells = measured.table(dataclasses.replace(book, measured={"llama-7b.2619": quick})).rows[0]
        assert [cell.text for cell in cells if isinstance(cell, Noted)].count("not compared") == 1
        assert all(cell.text != "not compared" for cell in measured.table(book).rows[0] if isinstance(cell, Noted))

    def test_curves_stand_beside_each_other_from_the_first_counted_step(self) -> None:
        made = page.page(measured_book(AT_2619))
        figure = next(each for section in made.sections for each in section.figures if each.label == "Figure 7")
        assert isinstance(figure, TimeSeries)
        found = {each.name: each for each in figure.series}
        assert {name.partition(", ")[2]: each.origin for name, each in found.items()} == {
            "2619 MHz": "predicted", "2619 MHz, this machine": "measured", "1593 MHz": "predicted"
        }  # fmt: skip
        ours, theirs = found["GPU busy, 2619 MHz"], found["GPU busy, 2619 MHz, this machine"]
        assert (theirs.start, len(theirs.devices)) == (pytest.approx(0.0), 2)
        assert theirs.values.shape[1] * theirs.period == pytest.approx(ours.values.shape[1] * ours.period, rel=0.02)

    def test_gains_between_measured_clocks_have_bars_of_their_own(self) -> None:
        one, both = (clocks.figure(measured_book(names), "Figure 6") for names in (AT_2619, AT_2619 | {"llama-7b.1593"}))
        assert isinstance(one, Bars)
        assert isinstance(both, Bars)
        assert [each.name for each in one.series] == ["predicted", "predicted, 16 x 1"]
        assert [each.name for each in both.series] == ["predicted", "predicted, 16 x 1", "measured"]
        assert [value is None for value in both.series[-1].values] == [False, True, False, True, True]

    def test_every_run_says_where_it_comes_from(self) -> None:
        made = page.page(measured_book(AT_2619 - {"dlrm.2619"}, {"dlrm.2619": "rank 3 failed in forward"}))
        every = made.sections[-1].figures[0]
        assert isinstance(every, Table)
        assert {str(getattr(row[1], "text", row[1])) for row in every.rows} == {"predicted", "measured"}
        assert len(every.rows) == len(PLAN.points) + len(AT_2619) - 1
        bad = {verdict.what: verdict.words for verdict in made.verdicts if verdict.good is False}
        assert bad == {"DLRM could not be measured": "rank 3 failed in forward"}
        assert "Measured on this machine" in {section.title for section in made.sections}
        assert len(html(made).encode()) < 6_000_000

    def test_the_document_keeps_measured_and_predicted_apart(self) -> None:
        document = report_study.document(measured_book(AT_2619), Path("page.html"))
        assert {each["origin"] for each in document["runs"].values()} == {"predicted"}
        assert {each["origin"] for each in document["measured"].values()} == {"measured"}
        assert document["not_measured"]["llama-7b.1593"] == "is at another clock"
