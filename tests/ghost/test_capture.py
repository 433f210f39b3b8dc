"""Captures in a child process: a Trace, or one clear error, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from membound.errors import CaptureError, InputError, MissingPackageError, StorageError
from membound.ghost import capture as module
from membound.ghost import processes, servers
from membound.ghost.capture import Limits, Progress, capture
from membound.ghost.child import describe
from membound.ghost.processes import Start, fresh
from membound.ghost.servers import preloaded
from membound.spec.job import Job
from membound.trace.schema import Trace


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which captures do their work."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(params=["fresh", "forked"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Each way of starting a child."""
    if request.param == "fresh":
        yield fresh
        return
    with preloaded() as forked:
        yield forked


@pytest.fixture
def stand_in(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start) -> Callable[..., Trace]:
    """Captures whose child is `stand_in.py`, which does what the Job's model says."""
    monkeypatch.setattr(processes, "MODULE", "stand_in")
    monkeypatch.setattr(servers, "USUAL", ())
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("STAND_IN_NOTES", str(tmp_path / "notes.json"))

    def act(model: str, limits: Limits | None = None, progress: Callable[[Progress], None] = module.unheard) -> Trace:
        return capture(Job.model_validate({"model": model, "data": {"seq_len": 8}}), {}, 1, limits, progress, start)

    return act


def is_gone(number: int) -> bool:
    """Whether process `number` ends, be it a moment after it was killed."""
    try:
        process = psutil.Process(number)
        for _ in range(6000):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        return True
    return False


class TestLimits:
    def test_too_much_time(self, stand_in: Callable[..., Trace], temporary: Path, tmp_path: Path) -> None:
        with pytest.raises(CaptureError, match=r"limit of 8\.00 s: raise it with --capture-time, for example 16\.0 s"):
            stand_in("sleep", Limits(seconds=8))  # long enough for two processes to start on a loaded machine
        assert list(temporary.iterdir()) == []
        child, grandchild, _ = json.loads((tmp_path / "notes.json").read_text())
        assert is_gone(child)
        assert is_gone(grandchild)

    def test_too_much_memory(self, stand_in: Callable[..., Trace], temporary: Path) -> None:
        with pytest.raises(CaptureError, match=r"memory limit of 200 MiB: raise it with --capture-memory, for example 400 MiB"):
            stand_in("grow", Limits(memory=200 * 2**20))
        assert list(temporary.iterdir()) == []

    def test_an_interruption_ends_the_child(self, stand_in: Callable[..., Trace], temporary: Path, tmp_path: Path) -> None:
        def interrupt(progress: Progress) -> None:
            if progress.stage == "training":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stand_in("sleep", progress=interrupt)
        assert list(temporary.iterdir()) == []
        assert all(is_gone(number) for number in json.loads((tmp_path / "notes.json").read_text())[:2])


class TestFailures:
    def test_an_abort_tells_what_was_raised_before(self, stand_in: Callable[..., Trace]) -> None:
        with pytest.raises(CaptureError, match=r"^the training program raised ZeroDivisionError: told before$"):
            stand_in("abort")

    def test_a_crash_without_a_word_tells_the_signal_and_the_last_error_line(self, stand_in: Callable[..., Trace], capfd: Any) -> None:
        with pytest.raises(CaptureError, match=r"was ended by SIGABRT: RuntimeError: last words"):
            stand_in("crash")
        assert capfd.readouterr() == ("", "")

    def test_an_exit_tells_its_status(self, stand_in: Callable[..., Trace]) -> None:
        with pytest.raises(CaptureError, match="ended with status 3: noise on standard output"):
            stand_in("leave")

    def test_no_temporary_folder(self, tiny_job: Job, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
        with pytest.raises(StorageError, match="set TMPDIR"):
            capture(tiny_job, tiny_config, 1)

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (InputError("recipe.x", ("a", "b"), "write c"), InputError),
            (MissingPackageError("peft", "recipe.method lora", "lora"), MissingPackageError),
            (ValueError("first\nsecond"), CaptureError),
            (KeyboardInterrupt(), CaptureError),
        ],
    )
    def test_errors_come_back_as_they_were(self, error: BaseException, kind: type[Exception]) -> None:
        back = module._revived(json.loads(json.dumps(describe(error))))
        assert type(back) is kind
        expected = {
            "ValueError": "the training program raised ValueError: first",
            "KeyboardInterrupt": "the training program raised KeyboardInterrupt",
        }
        assert str(back) == expected.get(type(error).__name__, str(error))

    def test_an_assertion_without_words_comes_back_with_its_line(self) -> None:
        try:
            assert 1 == 2
        except AssertionError as error:
            error.args = ()
            back = str(module._revived(json.loads(json.dumps(describe(error)))))
        assert re.fullmatch(r"the training program raised AssertionError: assert 1 == 2 .*\(.*test_capture\.py, line \d+\)", back)


class TestRealChild:
    def test_a_trace_comes_back(self, tiny_trace: Trace, tiny_job: Job) -> None:
        assert tiny_trace.header.parameters == 158_016
        assert tiny_trace.header.job == tiny_job.model_dump(mode="json")
        assert len(tiny_trace) > 1000

    def test_the_programs_own_refusal_comes_back_with_its_text(self, tiny_config: dict[str, Any], temporary: Path) -> None:
        job = Job.model_validate({"model": "tiny", "data": {"seq_len": 8}, "recipe": {"method": "lora", "lora": {"targets": ["no_such_layer"]}}})
        heard: list[Progress] = []
        with pytest.raises(InputError, match=r"recipe\.lora\.targets: \('no_such_layer',\): .*not found in the base model of tiny") as caught:
            capture(job, tiny_config, 1, progress=heard.append)
        assert caught.value.field == "recipe.lora.targets"
        assert [progress.stage for progress in heard] == ["starting", "building"]
        assert list(temporary.iterdir()) == []

    def test_a_failing_operation_comes_back_by_name(self, tiny_config: dict[str, Any]) -> None:
        job = Job.model_validate({"model": "tiny", "data": {"seq_len": 1 << 24}, "recipe": {"micro_batch": 1 << 24}})
        with pytest.raises(CaptureError, match=r"^the training program raised RuntimeError: .*overflow"):
            capture(job, {**tiny_config, "vocab_size": 1 << 24}, 1)

    def test_capturing_needs_no_torch_here(self) -> None:
        assert module.__file__ is not None
        assert "import torch" not in Path(module.__file__).read_text()


def test_the_child_looks_for_modules_where_this_process_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = processes._search_path().split(os.pathsep)
    assert path[0] == str(tmp_path)
    assert [os.path.abspath(entry) for entry in sys.path] == path


class TestForked:
    """Children of a process that has imported PyTorch for all of them."""

    def test_traces_are_those_of_children_that_import_themselves(self, tiny_config: dict[str, Any]) -> None:
        recipes: list[dict[str, Any]] = [{"engine": "deepspeed", "zero_stage": 3}, {"method": "qlora", "engine": "ddp"}, {"method": "lora"}]
        jobs = [
            Job.model_validate({"model": "tiny", "data": {"seq_len": 16}, "recipe": each, "gpus": 1 + 3 * ("engine" in each)}) for each in recipes
        ]
        with preloaded() as start:
            forked = [capture(job, tiny_config, job.gpus, start=start) for job in jobs]
        for job, trace in zip(jobs, forked, strict=True):
            own = capture(job, tiny_config, job.gpus)
            assert trace.header == own.header
            for table in ("instructions", "operands", "storages"):
                ours, theirs = getattr(trace, table), getattr(own, table)
                assert all(np.array_equal(ours[name], theirs[name]) for name in theirs), f"{job.recipe.method}: {table}"

    @pytest.mark.parametrize("start", ["forked"], indirect=True)
    def test_one_process_serves_one_after_the_other(self, stand_in: Callable[..., Trace]) -> None:
        with pytest.raises(CaptureError, match="ended with status 3"):
            stand_in("leave")
        servers = psutil.Process().children()
        for model, ending in (("crash", "was ended by SIGABRT"), ("leave", "ended with status 3")):
            with pytest.raises(CaptureError, match=ending):
                stand_in(model)
        assert psutil.Process().children() == servers
        assert all(each.children() == [] for each in servers)

    @pytest.mark.parametrize("start", ["forked"], indirect=True)
    def test_one_that_was_ended_is_replaced(self, stand_in: Callable[..., Trace]) -> None:
        others = set(psutil.Process().children())
        for _ in range(2):
            with pytest.raises(CaptureError, match="ended with status 3"):
                stand_in("leave")
            (server,) = set(psutil.Process().children()) - others
            server.kill()
            assert is_gone(server.pid)

    def test_all_are_gone_once_nobody_needs_them(self, tiny_job: Job, tiny_config: dict[str, Any]) -> None:
        def interrupt(progress: Progress) -> None:
            found.update({each.pid for each in psutil.Process().children(recursive=True)} - others)
            if progress.stage == "building":
                raise KeyboardInterrupt

        # The session has such a server of its own.
        others = {each.pid for each in psutil.Process().children(recursive=True)}
        found: set[int] = set()
        with pytest.raises(KeyboardInterrupt), preloaded() as start:
            capture(tiny_job, tiny_config, 1, progress=interrupt, start=start)
        assert len(found) == 2
        assert all(is_gone(number) for number in found)

    def test_they_outlive_no_parent(self, tiny_job: Job, tiny_config: dict[str, Any], tmp_path: Path) -> None:
        asked = tmp_path / "asked.json"
        asked.write_text(json.dumps([tiny_job.model_dump(mode="json"), tiny_config]))
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(asked)], stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
        ) as parent:
            assert parent.stdout is not None
            while b"building" not in parent.stdout.readline():
                pass
            family = psutil.Process(parent.pid).children(recursive=True)
            parent.kill()
        assert len(family) == 2
        assert all(is_gone(each.pid) for each in family)


KILLED = """
import json, sys
from membound.ghost.capture import capture
from membound.ghost.servers import preloaded
from membound.spec.job import Job
job, config = json.load(open(sys.argv[1]))
with preloaded() as start:
    capture(Job.model_validate(job), config, 1, progress=lambda progress: print(progress.stage, flush=True), start=start)
"""
