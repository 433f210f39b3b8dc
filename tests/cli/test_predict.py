"""The command line as people and scripts meet it: what goes to which stream, which exit status, one line for each mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from membound.run import quantities
from membound.trace.schema import Trace
from tests.commands import from_nothing, membound

TINY = "model: tiny\ndata: {seq_len: 256}\nrecipe: {micro_batch: 2}\nmachine: rtx-4090\n"
COMMAND = [sys.executable, "-m", "membound"]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(TINY)
    return path


@pytest.mark.usefixtures("tiny_trace")
class TestAnswers:
    def test_json_is_one_document_and_nothing_else(self, job: Path) -> None:
        done = from_nothing("predict", str(job), "--json")
        assert (done.returncode, done.stderr) == (0, "")
        document = json.loads(done.stdout)
        assert (document["schema"], document["origin"], document["fits"]["gpu"], document["fits"]["why"]) == (1, "predicted", True, None)
        assert set(document["values"]) == set(quantities.QUANTITIES)
        peak = document["values"]["gpu.memory.allocated.peak"]
        assert peak["low"] <= peak["value"] <= peak["high"]
        assert peak["unit"] == "B"
        step = document["values"]["step.time"]
        assert 0 < step["low"] <= step["value"] <= step["high"] < 1
        assert step["unit"] == "s"
        assert document["values"]["model.parameters"]["value"] == 158_016

    def test_asked_again_it_answers_the_same(self, job: Path, tmp_path: Path) -> None:
        asked = ["predict", str(job), "--json", "-s", "recipe.accumulation=2"]
        first, again = (membound(*asked, MEMBOUND_CACHE=str(tmp_path / "cache")) for _ in range(2))
        documents = [json.loads(done.stdout) for done in (first, again)]
        documents[0]["about"].pop("capture")
        assert documents[0] == documents[1]

    def test_people_get_a_summary(self, job: Path) -> None:
        done = membound("predict", str(job))
        assert (done.returncode, done.stderr) == (0, "")
        assert "FITS ON THE GPU" in done.stdout

    def test_standard_input_and_changes(self) -> None:
        done = membound("predict", "-", "--json", "-s", "machine.gpu.hbm.capacity=40 GiB", stdin=TINY)
        assert json.loads(done.stdout)["machine"]["gpu"]["hbm"]["capacity"] == 40 * 2**30

    def test_what_does_not_fit_is_an_answer_too(self, job: Path) -> None:
        done = membound("predict", str(job), "--json", "--no-advice", "-s", "machine.gpu.hbm.capacity=300 MiB")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["fits"]["gpu"] is False

    def test_the_allocators_settings_are_heard(self, job: Path) -> None:
        plain, larger = (
            json.loads(membound("predict", str(job), "--json", "--allocator", text).stdout)["values"]["gpu.memory.reserved.peak"]["value"]
            for text in ("", "large_segment_size_mb:64")
        )
        assert plain < larger

    def test_a_folder_of_results(self, job: Path, tmp_path: Path) -> None:
        out = tmp_path / "deep" / "out"
        for _ in range(2):  # a second time in place of the first
            done = membound("predict", str(job), "--json", "--out", str(out))
            assert (done.returncode, done.stderr) == (0, "")
        assert json.loads((out / "run.json").read_text())["fits"] == json.loads(done.stdout)["fits"]
        assert (out / "memory.png").stat().st_size > 1000
        assert [path.name for path in out.parent.iterdir()] == ["out"]

    def test_a_cache_that_cannot_be_written_is_a_warning(self, job: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        done = membound("predict", str(job), "--json", MEMBOUND_CACHE=str(tmp_path / "file" / "cache"))
        assert done.returncode == 0
        assert json.loads(done.stdout)["fits"]["gpu"] is True
        told = [line.split(" is not kept: ")[0] for line in done.stderr.splitlines()]
        assert told == ["membound: warning: the trace", "membound: warning: a replay"]

    def test_nobody_listens(self, job: Path) -> None:
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run([*COMMAND, "predict", str(job), "--json"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        os.close(write)
        assert done.stderr == ""
        assert done.returncode != 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no-such.yaml"], "job file: 'no-such.yaml': cannot be read: No such file or directory"),
        (["JOB", "--machine", "hgx-h10"], "machine: 'hgx-h10': did you mean"),
        (["JOB", "--set", "recipe.micro_bacth=8"], "recipe.micro_bacth: 8: unknown key; did you mean micro_batch?"),
        (["JOB", "--set", "recipe.micro_batch"], "--set: 'recipe.micro_batch': write KEY=VALUE"),
        (["JOB", "--set", "recipe.method=loar"], "recipe.method: 'loar': not one of the choices; did you mean lora?"),
        (["JOB", "--set", "machine.gpu.hbm.clock=1593 MB"], "machine.gpu.hbm.clock: '1593 MB': write a quantity such as '2619 MHz'"),
        (["JOB", "--set", "gpus=3"], "recipe.engine: 'none': 3 GPUs need ddp, fsdp or deepspeed"),
        (["JOB", "--set", "gpus=3", "--set", "recipe.engine=ddp"], "rtx-4090 has 1 and no network to more nodes"),
        (["JOB", "--set", "model=tinny"], "model: 'tinny': did you mean tiny"),
        (["JOB", "--allocator", "expandable:True"], "PYTORCH_ALLOC_CONF: 'expandable': did you mean expandable_segments"),
        (["JOB", "--capture-time", "soon"], "--capture-time: 'soon': write a quantity such as"),
        (["JOB", "--capture-memory", "4 MHz"], "--capture-memory: '4 MHz': write a quantity such as"),
        (["JOB", "--out", "/dev/null/x"], "/dev/null/x: "),
        (["JOB", "--out", "FOLDER"], "this folder holds something that is no run: choose another"),
        (["-"], "job file: '-': write a mapping of keys to values"),
    ],
)
@pytest.mark.usefixtures("tiny_trace")
def test_each_mistake_is_one_line(arguments: list[str], told: str, job: Path, tmp_path: Path) -> None:
    done = membound("predict", *({"JOB": str(job), "FOLDER": str(tmp_path)}.get(text, text) for text in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("membound: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["predict"], ["predict", "a", "b"], ["predict", "--bogus"], ["bogus"]])
def test_wrong_usage_has_a_status_of_its_own(arguments: list[str]) -> None:
    done = membound(*arguments)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(("arguments", "status"), [(["predict", "no-such.yaml"], 1), (["bogus"], 2), (["catalogue", "--json"], 0)])
def test_a_process_that_is_forked_answers_as_one_that_is_not(arguments: list[str], status: int) -> None:
    forked, new = membound(*arguments), from_nothing(*arguments)
    assert forked.returncode == new.returncode == status
    assert forked.stdout == new.stdout
    # Usage names the program by how it was started.
    assert forked.stderr.replace("-c ", "python -m membound ") == new.stderr


def stop(job: Path, tmp_path: Path, number: int) -> tuple[int, str, str]:
    """Start a capture, send it `number` once its child is up; exit status, standard output and error."""
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "TMPDIR": str(work), "MEMBOUND_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen([*COMMAND, "predict", str(job)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    while not (children := psutil.Process(process.pid).children()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate()
    psutil.wait_procs(children)
    assert list(work.iterdir()) == []
    assert not (tmp_path / "cache").exists()
    return process.returncode, out, err


@pytest.mark.parametrize(("number", "line"), [(signal.SIGINT, "membound: interrupted\n"), (signal.SIGTERM, "membound: stopped\n")])
def test_a_stopped_capture_leaves_nothing(job: Path, tmp_path: Path, number: int, line: str) -> None:
    assert stop(job, tmp_path, number) == (128 + number, "", line)


class TestOtherVerbs:
    def test_help_and_version(self) -> None:
        assert "predict" in from_nothing("--help").stdout
        assert membound("--version").stdout.startswith("membound ")

    def test_catalogue(self) -> None:
        assert {"models", "machines"} <= json.loads(membound("catalogue", "--json").stdout).keys()
        assert json.loads(membound("catalogue", "machines", "hgx-h100", "--json").stdout)["gpu"]["name"] == "h100-sxm"
        assert "158,016 parameters" in membound("catalogue", "models").stdout
        assert "model_type: llama" in membound("catalogue", "models", "llama-7b").stdout

    @pytest.mark.parametrize(("arguments", "told"), [(["machine"], "did you mean machines"), (["models", "lama-7b"], "did you mean llama-7b")])
    def test_catalogue_tells_the_nearest(self, arguments: list[str], told: str) -> None:
        done = membound("catalogue", *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert told in done.stderr

    def test_doctor(self, tiny_trace: Trace) -> None:
        document: dict[str, Any] = json.loads(membound("doctor", "--json").stdout)
        assert document["packages"]["torch"] == tiny_trace.header.versions["torch"]
        assert "torch" in membound("doctor").stdout
