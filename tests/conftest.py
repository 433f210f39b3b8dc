"""What all tests share: no network, nothing of the user's own, and a cache of traces, so that each capture is made once in a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything that reads them is imported. Several tests run at once: threads of each that wait for one another take more time than they save.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# No network.
os.environ["HF_HUB_OFFLINE"] = "1"

from membound.ghost.capture import capture
from membound.ghost.processes import fresh
from membound.ghost.servers import preloaded
from membound.spec import catalogue
from membound.spec.job import Job
from membound.study.predicting import Predictor
from membound.trace import cache
from membound.trace.schema import Trace

# The files that take longest, longest first: where files are dealt out to several processes, none is left with a long one at the end.
LONGEST = (
    *("measure/running/test_everything", "study/hbm_fine_tuning/test_for_real", "ghost/test_models", "ghost/test_exact", "cli/test_sweep"),
    *("cli/test_predict", "replay/test_time", "ghost/test_shortcut", "cli/test_calibrate", "study/hbm_fine_tuning/test_hbm_fine_tuning"),
    *("ghost/test_capture", "ghost/test_other_models", "ghost/test_quantised", "ghost/test_kernels", "measure/clocks/test_killed"),
    *("measure/clocks/test_session", "study/test_answers", "measure/running/test_outcomes", "measure/running/test_killed"),
    *("measure/running/test_nodes", "measure/sampling/test_sweep", "study/sweep/test_sweep", "study/calibration/test_fitting"),
    *("ghost/test_deepspeed", "measure/clocks/test_restore", "report/page/test_browser", "study/calibration/test_leave_one_out"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    turns = {Path(__file__).parent / f"{name}.py": turn for turn, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


@pytest.fixture(scope="session", autouse=True)
def trace_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that $MEMBOUND_CACHE names for the whole session: one for all workers of a parallel run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "traces-of-session"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMBOUND_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def children_that_are_forked() -> Iterator[None]:
    """Captures in this process fork from one that has imported PyTorch and its like, which takes a child longer than a small capture.

    Their Traces are those of children that import all themselves (tests/ghost/test_capture.py); what is tested of `fresh` ones says so.
    """
    with preloaded() as start, pytest.MonkeyPatch.context() as patch:
        for function in (capture, Predictor.__init__):
            assert function.__defaults__ is not None
            patch.setattr(function, "__defaults__", tuple(start if each is fresh else each for each in function.__defaults__))
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Predictions rest on what ships alone, whatever profiles this user has measured; no journal of real clocks is found, and none left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMBOUND_PROFILES", str(tmp_path_factory.mktemp("no-profiles")))
        patch.setenv("MEMBOUND_STATE", str(tmp_path_factory.mktemp("no-state")))
        yield


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    """The Hugging Face configuration of the model `tiny`."""
    return catalogue.model("tiny").config


@pytest.fixture(scope="session")
def tiny_job() -> Job:
    """The Job of examples/tiny.yaml."""
    return Job.model_validate({"model": "tiny", "data": {"seq_len": 256}, "recipe": {"micro_batch": 2}, "machine": "rtx-4090"})


@pytest.fixture(scope="session")
def tiny_trace(tiny_job: Job, tiny_config: dict[str, Any], trace_cache: Path) -> Trace:
    """The Trace of `tiny_job`, captured once."""
    kept, key = cache.TraceCache(trace_cache), cache.key(tiny_job, tiny_config, 1)
    trace = kept.get(key, tiny_job)
    if trace is None:
        trace = capture(tiny_job, tiny_config, 1)
        kept.put(key, trace)
    return trace
