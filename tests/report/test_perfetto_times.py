"""The Chrome trace of a predicted run: the last captured step on an axis of predicted time."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from membound.report import export, perfetto, perfetto_times
from membound.spec import jobfile
from membound.spec.job import Job
from membound.study.predicting import Prediction, Predictor
from membound.trace.schema import Trace

Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def predicted(tiny_job: Job, tiny_trace: Trace) -> Prediction:
    return Predictor().predict(tiny_job, jobfile.ask(tiny_job).machine)


@pytest.fixture(scope="module")
def times(predicted: Prediction) -> perfetto.Times:
    return perfetto_times.of(predicted.timing.played)


def test_each_launch_of_the_last_step_has_the_time_of_the_replay(predicted: Prediction, times: perfetto.Times) -> None:
    played, columns = predicted.timing.played, predicted.trace.instructions
    timed = np.isfinite(times.start)
    assert set(columns["step"][timed]) == {predicted.trace.header.steps - 1}
    assert timed.sum() == np.isin(np.arange(len(timed)), played.work.program.row[played.timeline.end[:, -1] > 0]).sum()
    assert (times.duration[timed] >= 0).all()
    assert np.nanmax(times.start + times.duration) == pytest.approx(played.timeline.end.max())


def test_the_file_is_in_time_and_holds_that_step_alone(predicted: Prediction, times: perfetto.Times, tmp_path: Path) -> None:
    export.write_all(tmp_path, predicted.run, predicted.trace, times)
    document = json.loads(gzip.decompress((tmp_path / "trace.perfetto.json.gz").read_bytes()))
    assert document["otherData"]["time_axis"] == "predicted time"
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    step = float(predicted.timing.played.timeline.borders[-1, 0].max()) * 1e6
    assert max(event["ts"] + event["dur"] for event in slices) <= step * 1.001
    phases = {event["name"] for event in slices if event["cat"] == "phase"}
    assert {"forward", "backward", "optimizer"} <= phases
    assert not phases & {"load", "step 1", "save"}


def test_its_memory_is_that_of_the_run_from_the_step_on(predicted: Prediction, times: perfetto.Times) -> None:
    whole = predicted.run.tables["memory.timeline"]
    part = perfetto_times.within(whole, times)
    assert 0 < part.num_rows < whole.num_rows
    assert part.equals(whole.slice(whole.num_rows - part.num_rows))
    first = np.flatnonzero(np.isfinite(times.start))[0]
    before, after = part.column("instruction").to_pylist()[:2]
    assert before < first <= after


def test_a_timeline_stays_whole_where_nothing_has_a_time(predicted: Prediction) -> None:
    whole, nothing = predicted.run.tables["memory.timeline"], np.full(len(predicted.trace), np.nan)
    assert perfetto_times.within(whole, perfetto.Times(nothing, nothing)).equals(whole)
