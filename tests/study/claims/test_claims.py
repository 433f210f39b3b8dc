"""The report's numbers as Runs and claims: each within the registry, with its words and place, and judged by the arithmetic that is said."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from membound.errors import CaptureError, RecordError, UnknownNameError
from membound.run import quantities, store
from membound.run.quantities import QUANTITIES
from membound.run.schema import Fits, Missing, Run, Value
from membound.spec import jobfile
from membound.study.claims import agreement, evaluation, published, stated, table
from membound.study.claims.agreement import Agreement
from membound.study.claims.predicting import ReportPredictor
from membound.study.claims.quantities import DERIVED, read
from membound.study.claims.stated import Claim
from membound.study.compare import compare

EXPERIMENTS = published.experiments()
CLAIMS = stated.claims()
BETWEEN = stated.between()
# Runs that claims speak of and that the report tells nothing else about: other classes of models.
CLASSES = {"bert-large", "t5-large", "gnmt", "resnet-50", "ssd300", "mask-rcnn", "ncf", "dlrm", "bloom"}


def claim(name: str) -> Claim:
    return next(each for each in CLAIMS if each.id == name)


def run(fits: Fits | None = None, tables: Mapping[str, pa.Table] | None = None, band: float = 0.0, **values: float) -> Run:
    """A predicted Run; `gpu_power_mean=500` is gpu.power.mean at 500 W; bands are `band` wide either way."""
    names = {name.replace("_", "."): number for name, number in values.items()}
    found: dict[str, Value | Missing] = {
        name: Value(number, QUANTITIES[name].unit, number * (1 - band), number * (1 + band), "a test") for name, number in names.items()
    }
    return Run("predicted", {}, {}, fits or Fits(True, True), found, tables or {})


def judged(name: str, runs: Mapping[str, Run], **more: Mapping[tuple[str, str], Run] | Mapping[str, str]) -> Agreement:
    return agreement.agreement(runs, claims=[claim(name)], **more)[0]  # type: ignore[arg-type]


class TestRuns:
    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_a_run_is_one_like_any_other(self, name: str, tmp_path: Path) -> None:
        run = published.runs()[name]
        quantities.validate(run.values)
        store.write(run, tmp_path / "run")
        again = store.read(tmp_path / "run")
        assert (again.origin, again.values, again.job) == ("published", run.values, run.job)

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_what_is_stated_has_words_and_a_place_and_the_rest_is_missing(self, name: str) -> None:
        for value in EXPERIMENTS[name].run.values.values():
            if isinstance(value, Value):
                place, _, words = value.basis.partition(": ")
                assert place
                assert words
            else:
                assert value.reason == published.UNSTATED

    def test_the_machines_are_as_the_report_sets_them(self) -> None:
        assert EXPERIMENTS["llama-7b-1593"].machine.gpu.hbm.clock == 1593e6
        assert EXPERIMENTS["llama-7b-2619"].machine.gpu.hbm.clock == 2619e6
        shapes = {name: EXPERIMENTS[f"llama-65b-dimm-{name}"].machine.host for name in ("96gb-1dpc", "128gb-2dpc")}
        assert {name: (host.capacity, host.dimms_per_channel) for name, host in shapes.items()} == {
            "96gb-1dpc": (1.5 * 2**40, 1),
            "128gb-2dpc": (4 * 2**40, 2),
        }

    def test_verdicts_are_published_too(self) -> None:
        refused = {name for name, each in EXPERIMENTS.items() if not (each.run.fits.gpu and each.run.fits.host)}
        assert refused == {"llama-65b-dimm-96gb-1dpc", "llama-7b-alone"}

    def test_a_published_run_is_compared_like_any_other(self) -> None:
        theirs = EXPERIMENTS["llama-7b-2619"].run
        busy = {"gpu.busy": Value(0.85, "1", 0.8, 0.9, "a test"), "gpu.power.peak": Value(500.0, "W", 450.0, 550.0, "a test")}
        ours = dataclasses.replace(theirs, origin="predicted", values=busy)
        rows = {row.name: row for row in compare(theirs, ours).rows}
        assert (rows["gpu.busy"].ratio, rows["gpu.busy"].inside) == (pytest.approx(0.85 / 0.8), True)
        assert rows["gpu.power.peak"].inside is False

    def test_an_unknown_run_is_refused(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean"):
            published.experiment("llama-7b-2618")

    def test_every_job_file_can_be_asked_for_as_it_is(self) -> None:
        folder = resources.files("membound.study").joinpath("data/report/jobs")
        jobs = {jobfile.read(str(file)).job for file in folder.iterdir()}
        assert {each.job for each in EXPERIMENTS.values()} == jobs


class TestSettings:
    @pytest.mark.parametrize("name", [name for name, each in EXPERIMENTS.items() if each.settings])
    def test_each_is_a_job_with_a_reason(self, name: str) -> None:
        experiment = EXPERIMENTS[name]
        assert len({setting.name for setting in experiment.settings}) == len(experiment.settings)
        assert all(setting.reason for setting in experiment.settings)
        variants = [experiment.variant(setting) for setting in experiment.settings]
        assert experiment.job in variants
        assert len({variant.model_dump_json() for variant in variants}) == len(variants)

    def test_the_recipe_s_rows_a_step_are_among_them(self) -> None:
        rows = [each.recipe.micro_batch * each.recipe.accumulation * each.gpus for each in map(EXPERIMENTS["llama-7b-2619"].variant, _zero1())]
        assert {128, 256} == set(rows)


def _zero1() -> tuple[published.Setting, ...]:
    return EXPERIMENTS["llama-7b-2619"].settings


class TestClaims:
    def test_ids_are_unique(self) -> None:
        assert len({each.id for each in CLAIMS}) == len(CLAIMS)

    @pytest.mark.parametrize("each", CLAIMS, ids=lambda each: each.id)
    def test_a_claim_is_whole(self, each: Claim) -> None:
        assert set(each.runs) <= EXPERIMENTS.keys() | CLASSES
        assert each.quantity in QUANTITIES or each.quantity in DERIVED or each.kind.startswith("fits")
        assert each.statement
        assert each.at
        assert each.low <= each.high
        assert math.isfinite(each.low) or math.isfinite(each.high)
        assert each.value is None or each.low <= each.value <= each.high
        assert bool(each.against) == (each.kind in {"ratio", "order", "lowest", "lowest-of-like", "median"})

    def test_ratios_are_of_one_job_or_say_so(self) -> None:
        for each in BETWEEN:
            if each.kind == "ratio" and "offload" not in each.id.split("-")[-1] and not each.id.endswith("offload-low"):
                assert EXPERIMENTS[each.run].job == EXPERIMENTS[each.against[0]].job, each.id

    def test_contradictions_name_each_other(self) -> None:
        assert "gain-65b-again" in claim("gain-65b").note
        assert "gain-65b:" in claim("gain-65b-again").note
        assert claim("gain-65b").low > claim("gain-65b-again").high
        assert claim("gain-7b").high / claim("power-7b").low < claim("efficiency-7b").low

    def test_times_of_table_3(self) -> None:
        assert claim("time-dimm-128gb-1dpc").value == pytest.approx(9078 / 9242, abs=1e-5)

    @pytest.mark.parametrize(("column", "value", "words"), [("kind", "rumour", "unknown kind"), ("id", "gain-7b", "share an id")])
    def test_a_damaged_file_is_refused(self, column: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = list(csv.DictReader(published.text("claims.csv").splitlines()))
        rows[3][column] = value
        text = "\n".join([",".join(rows[0]), *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)])
        monkeypatch.setattr(published, "text", lambda file: text)
        with pytest.raises(RecordError, match=words):
            stated.between()


FAST, SLOW = "llama-7b-2619", "llama-7b-1593"


class TestEvaluation:
    @pytest.mark.parametrize(
        ("rates", "verdict", "distance"),
        [((1150, 1000), "in band", 0.0), ((1120, 1000), "within tolerance", 0.025), ((1200, 1000), "miss", 0.045)],
    )
    def test_a_gain_is_judged_by_what_the_words_allow_then_by_the_aim(self, rates: tuple[int, int], verdict: str, distance: float) -> None:
        found = judged("gain-7b", {FAST: run(tokens_rate=rates[0]), SLOW: run(tokens_rate=rates[1])})
        assert (found.verdict, found.distance) == (verdict, pytest.approx(distance))

    def test_a_run_that_was_not_made_is_missing_and_says_so(self) -> None:
        found = judged("gain-7b", {FAST: run(tokens_rate=1000)})
        assert (found.verdict, found.reason, found.distance, found.ratio) == ("missing", f"not run: {SLOW}", None, None)

    def test_a_value_that_cannot_be_had_is_missing_with_its_reason(self) -> None:
        runs = {FAST: Run("predicted", {}, {}, Fits(True, True), {"gpu.busy": Missing("not priced")})}
        assert judged(f"{FAST} gpu.busy", runs).reason == "not priced"

    def test_errors_that_both_runs_share_cancel_where_nothing_changes(self) -> None:
        found = evaluation.evaluate(claim("gain-7b"), {FAST: run(tokens_rate=1000, band=0.2), SLOW: run(tokens_rate=1000, band=0.2)})
        assert isinstance(found, Value)
        assert (found.low, found.high) == (1.0, 1.0)
        changed = evaluation.evaluate(claim("gain-7b"), {FAST: run(tokens_rate=1200, band=0.2), SLOW: run(tokens_rate=1000, band=0.2)})
        assert isinstance(changed, Value)
        assert (changed.low, changed.high) == (pytest.approx(1.12), pytest.approx(1.28))

    @pytest.mark.parametrize(("temperature", "verdict"), [(70, "in band"), (90, "miss")])
    def test_a_bound_has_one_end(self, temperature: float, verdict: str) -> None:
        assert judged("limit-7b-gpu", {FAST: run(gpu_temperature_peak=temperature)}).verdict == verdict

    def test_verdicts_on_memory(self) -> None:
        name = "llama-65b-dimm-96gb-1dpc"
        assert judged(f"{name} fits-host", {name: run(Fits(True, False, "no"))}).verdict == "in band"
        assert judged(f"{name} fits-host", {name: run()}).verdict == "miss"

    @pytest.mark.parametrize(("times", "verdict"), [((1, 2, 3, 4), "in band"), ((1, 2, 4, 3), "miss"), ((1, 2, 2, 2), "miss")])
    def test_an_order_holds_or_does_not(self, times: tuple[int, ...], verdict: str) -> None:
        order = claim("order-dimm")
        runs = {name: run(step_time=time) for name, time in zip(order.runs, times, strict=True)}
        assert judged("order-dimm", runs).verdict == verdict
        assert judged("order-1dpc", runs).verdict == "in band"

    def test_lower_power_is_asked_of_runs_of_comparable_use_only(self) -> None:
        names = claim("power-bert").runs
        runs = {name: run(gpu_power_mean=400, hbm_utilisation_mean=0.9) for name in names}
        runs["bert-large"] = run(gpu_power_mean=500, hbm_utilisation_mean=0.5)
        assert "comparable" in judged("power-bert", runs).reason
        runs["gnmt"] = run(gpu_power_mean=600, hbm_utilisation_mean=0.55)
        assert judged("power-bert", runs).verdict == "in band"

    def test_the_read_share_is_of_all_traffic(self) -> None:
        runs = {name: run(hbm_traffic_read=6, hbm_traffic_write=4) for name in claim("read-share").runs}
        assert judged("read-share", runs).ratio == pytest.approx(1.0)

    def test_tokens_per_joule_go_as_flops_per_watt(self) -> None:
        runs = {FAST: run(tokens_rate=1150, gpu_power_mean=660), SLOW: run(tokens_rate=1000, gpu_power_mean=600)}
        found = judged("efficiency-7b", runs)
        assert isinstance(found.ours, Value)
        assert found.ours.value == pytest.approx(1.15 / 1.1)
        assert (found.verdict, "contradicts" in found.reason) == ("miss", True)

    def test_the_cpu_s_peak_is_read_from_the_series(self) -> None:
        series = pa.table({"cpu.utilisation": [0.4, None, 0.97]})
        found = read(run(tables={"host": series}), "cpu.utilisation.peak")
        assert isinstance(found, Value)
        assert found.value == 0.97
        assert isinstance(read(run(), "cpu.utilisation.peak"), Missing)

    def test_a_peak_of_hbm_use_is_what_a_sensor_of_100_ms_sees(self) -> None:
        use = [0.3] * 5 + [0.9, 0.9] + [0.3] * 5
        series = pa.table({"gpu": [0] * len(use), "hbm.utilisation": use})
        found = judged(f"{FAST} hbm.utilisation.peak", {FAST: run(tables={"gpu": series}, band=0.1, hbm_utilisation_peak=0.9)}).ours
        assert isinstance(found, Value)
        assert found.value == pytest.approx((2 * 0.9 + 3 * 0.3) / 5)
        assert (found.low, found.high) == (pytest.approx(0.9 * found.value), pytest.approx(1.1 * found.value))

    def test_a_published_peak_is_what_its_sensor_read(self) -> None:
        found = read(published.runs()[FAST], "hbm.utilisation.peak.sensed")
        assert isinstance(found, Value)
        assert found.value == 0.6
        assert isinstance(read(run(), "hbm.utilisation.peak.sensed"), Missing)


class TestAgreement:
    def test_the_report_agrees_with_itself_but_for_its_contradictions(self) -> None:
        found = agreement.agreement(published.runs())
        assert len(found) == len(CLAIMS)
        assert {each.verdict for each in found if each.claim.against == ()} <= {"in band", "missing"}
        # What it states of both runs of a ratio lies within what it states of the ratio.
        assert {each.claim.id for each in found if each.claim.kind == "ratio" and each.verdict != "missing"} == {
            "busy-qlora-offload",
            "utilisation-qlora-offload",
        }
        assert not [each.claim.id for each in found if each.verdict == "miss"]

    def test_misses_come_first_the_largest_before(self) -> None:
        runs = {FAST: run(gpu_busy=0.4, hbm_utilisation_mean=0.5, hbm_capacity_utilisation=0.85)}
        found = [each for each in agreement.agreement(runs) if each.claim.run == FAST and each.claim.kind == "value"]
        assert [each.verdict for each in found][:2] == ["miss", "miss"]
        assert [each.claim.quantity for each in found][:2] == ["gpu.busy", "hbm.capacity.utilisation"]
        assert found[-1].claim.quantity == "hbm.utilisation.mean"

    def test_settings_that_the_report_leaves_open_give_a_range(self) -> None:
        runs = {FAST: run(tokens_rate=1300), SLOW: run(tokens_rate=1000)}
        variants = {(FAST, "1 x 16"): run(tokens_rate=1150), (SLOW, "1 x 16"): run(tokens_rate=1000), (FAST, "8 x 2"): run(tokens_rate=1400)}
        found = judged("gain-7b", runs, variants=variants)
        assert found.spread is not None
        assert (found.spread.low, found.spread.high) == (pytest.approx(1.15), pytest.approx(1.4))
        assert found.settled_by == ("1 x 16",)
        assert "ours agrees with 1 x 16" in found.reason

    def test_a_reason_is_the_caller_s(self) -> None:
        runs = {FAST: run(tokens_rate=1300), SLOW: run(tokens_rate=1000)}
        assert judged("gain-7b", runs, reasons={"gain-7b": "we know why"}).reason == "we know why"
        assert judged("gain-7b", runs).reason == ""

    def test_a_miss_says_what_the_step_hangs_on(self) -> None:
        bound = dataclasses.replace(run(tokens_rate=1300), about={"sensitivity": {"compute": 0.7, "hbm": 0.28, "launch": 0.02}})
        found = judged("gain-7b", {FAST: bound, SLOW: run(tokens_rate=1000)})
        assert found.reason == "the step of ours hangs on arithmetic 70%, HBM 28%"

    def test_a_claim_s_own_band_counts_not_ours(self) -> None:
        found = judged("gain-7b", {FAST: run(tokens_rate=1200, band=0.2), SLOW: run(tokens_rate=1000, band=0.2)})
        assert (found.verdict, found.overlaps) == ("miss", True)
        assert "band" in found.reason

    def test_the_table_holds_every_claim(self) -> None:
        found = agreement.agreement(published.runs())
        rows = table.table(found).to_pylist()
        assert [each["claim"] for each in rows] == [each.claim.id for each in found]
        assert all(each["reason"] for each in rows if each["verdict"] == "missing")
        assert all((each["ours"] is None) == (each["verdict"] == "missing") for each in rows)
        page = table.markdown(found)
        assert not [each.claim.id for each in found if f"| {each.claim.id} |" not in page]

    def test_bounds_and_verdicts_are_shown_as_such(self) -> None:
        shown = {name: table.published(claim(name)) for name in ("limit-7b-gpu", "alone-7b", "order-dimm", "gain-7b")}
        assert shown == {
            "limit-7b-gpu": "at most 87 degC",
            "alone-7b": "at least 104 GiB",
            "order-dimm": "yes",
            "gain-7b": "x 1.150 (x 1.145 .. x 1.155)",
        }

    def test_distance_is_measured_from_the_nearer_end(self) -> None:
        each = dataclasses.replace(claim("gain-7b"), low=1.0, high=2.0)
        assert [agreement.outside(each, value) for value in (0.5, 1.5, 2.25)] == [0.5, 0.0, 0.25]


class Oracle:
    """Predicts a Run that fits for everything but QLoRA, which it refuses."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def predict(self, job: Any, machine: Any, options: Any = None) -> Any:
        self.asked.append((job.model_dump_json(), machine.gpu.hbm.clock))
        if job.recipe.method == "qlora":
            raise CaptureError("refused")
        return SimpleNamespace(run=run(tokens_rate=machine.gpu.hbm.clock))


class TestPredicting:
    @pytest.fixture
    def oracle(self) -> Oracle:
        return Oracle()

    def test_every_experiment_has_a_run_or_a_reason(self, oracle: Oracle) -> None:
        predictor: Any = oracle
        found = ReportPredictor(predictor).predict()
        assert found.runs.keys() | found.failed.keys() >= EXPERIMENTS.keys()
        assert {name: why for name, why in found.failed.items() if name in EXPERIMENTS} == {
            "llama-65b-qlora-2619": "refused",
            "llama-65b-qlora-1593": "refused",
        }
        wanted = {(name, setting.name) for name, each in EXPERIMENTS.items() for setting in each.settings}
        assert found.variants.keys() | {tuple(what.split(": ")) for what in found.failed if ": " in what} == wanted

    def test_what_is_the_same_is_predicted_once(self, oracle: Oracle) -> None:
        predictor: Any = oracle
        ReportPredictor(predictor).predict(settings=False)
        clocks = [clock for job, clock in oracle.asked if job == EXPERIMENTS[FAST].job.model_dump_json()]
        assert sorted(clocks) == [1593e6, 2619e6]
        # The reference configuration of the DIMMs is the one that all else ran on.
        assert len(oracle.asked) == len(EXPERIMENTS) - 1

    def test_predictions_meet_the_claims(self, oracle: Oracle) -> None:
        predictor: Any = oracle
        found = ReportPredictor(predictor).predict()
        gain = judged("gain-7b", found.runs, variants=found.variants)
        assert isinstance(gain.ours, Value)
        assert gain.ours.value == pytest.approx(2619 / 1593)
        assert gain.spread is not None
        assert len(gain.spread.values) == len(EXPERIMENTS[FAST].settings)
