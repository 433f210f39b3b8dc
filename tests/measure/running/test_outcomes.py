"""How a measurement may end: an answer, a failure in one line, a signal. The Run is kept each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import membound
from membound.errors import MemboundError
from membound.measure.marks import Marks, file_of
from membound.measure.outcome import of
from membound.measure.place import Place, write_json
from membound.measure.plan import Options, Plan
from membound.run.schema import Missing

from .conftest import COMMAND, measure


def test_out_of_host_memory_is_an_answer(job: str, tmp_path: Path) -> None:
    done = measure(job, "--json", "--out", "run", "--set", "recipe.micro_batch=512", "--host-limit", "800 MiB", "--steps", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fits = json.loads(done.stdout)["fits"]
    assert (fits["gpu"], fits["host"]) == (True, False)
    assert fits["why"].startswith("rank 0 ran out of host memory in forward of step 0, micro-step 0: it tried to allocate")
    run = membound.load(tmp_path / "run")
    assert run.tables["marks"].to_pylist()[-1]["name"] == "forward"
    step = run.values["step.time"]
    assert isinstance(step, Missing)
    assert "ran out of host memory" in step.reason


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("recipe.method=lora recipe.lora.targets=[nowhere]", "recipe.lora.targets: ('nowhere',): not found in the base model of tiny"),
        ("recipe.attention=flash", "recipe.attention: 'flash'"),
    ],
)
def test_a_failing_job_is_one_line_and_a_run(change: str, told: str, job: str, tmp_path: Path) -> None:
    changes = [word for each in change.split() for word in ("--set", each)]
    done = measure(job, "--out", "run", *changes, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"membound: {told}")
    assert done.stderr.endswith("(the run so far is in run)\n")
    ended = membound.load(tmp_path / "run").about["ended"]
    assert ended["how"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no-such.yaml"], "job file: 'no-such.yaml': cannot be read"),
        (["JOB", "--steps", "0"], "--steps: 0: write 1 or more"),
        (["JOB", "--period", "20 MB"], "--period: '20 MB': write a quantity such as '20 ms'"),
        (["JOB", "--period", "20 s"], "--period: 20.0: write 1 ms to 10 s"),
        (["JOB", "--set", "machine.gpu.hbm.clock=1593MHz"], "--set: 'machine.gpu.hbm.clock=1593MHz': this machine is as it is"),
        (["JOB", "--launcher", "torchrum"], "--launcher: 'torchrum': did you mean torchrun?"),
        (["JOB", "--set", "gpus=2", "--set", "recipe.engine=ddp", "--launcher", "alone"], "--launcher: 'alone': starts one process"),
        (["JOB", "--nodes", "2"], "--rendezvous: '': several nodes need a place to meet"),
        (["JOB", "--machine", "hgx-h10"], "machine: 'hgx-h10': did you mean"),
        (["JOB", "--out", "."], "this folder holds something that is no run: choose another"),
        (["--out", "run", "--", "/no/such/command"], "command: '/no/such/command': cannot be started: No such file or directory"),
        (["--recover", "nowhere"], "nowhere: holds no measurement"),
    ],
)
def test_each_mistake_is_one_line(arguments: list[str], told: str, job: str, tmp_path: Path) -> None:
    (tmp_path / "something").write_text("")
    done = measure(*(job if word == "JOB" else word for word in arguments), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("membound: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["a.yaml", "--", "true"], ["--bogus"]])
def test_wrong_usage_has_a_status_of_its_own(arguments: list[str], tmp_path: Path) -> None:
    assert measure(*arguments, cwd=tmp_path).returncode == 2


class TestCommands:
    def test_output_and_status_are_the_commands_own(self, tmp_path: Path) -> None:
        done = measure("--out", "run", "--", "sh", "-c", "echo out; echo err >&2; exit 7", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (7, "out\n")
        assert done.stderr == "err\nmembound: ended with exit status 7; the run is in run\n"
        assert membound.load(tmp_path / "run").about["ended"]["status"] == 7

    def test_its_options_are_its_own(self, tmp_path: Path) -> None:
        done = measure("--out", "run", "--", sys.executable, "-c", "import sys; print(sys.argv[1:])", "--json", "--steps", "--", "x", cwd=tmp_path)
        assert done.stdout == "['--json', '--steps', '--', 'x']\n"

    def test_with_json_its_output_goes_beside(self, tmp_path: Path) -> None:
        done = measure("--json", "--out", "run", "--", "echo", "hello", cwd=tmp_path)
        assert json.loads(done.stdout)["job"]["command"] == ["echo", "hello"]
        assert done.stderr == "hello\n"

    def test_the_whole_tree_is_watched(self, tmp_path: Path) -> None:
        grandchild = f"{sys.executable} -c 'import time; x = bytearray(60_000_000); time.sleep(3)'"
        measure("--out", "run", "--", "sh", "-c", f"{grandchild} & wait", cwd=tmp_path)
        rows = membound.load(tmp_path / "run").tables["processes"].to_pylist()
        assert len({row["pid"] for row in rows}) >= 2
        assert max(row["rss"] for row in rows) > 60_000_000

    def test_a_command_that_a_signal_kills(self, tmp_path: Path) -> None:
        done = measure("--out", "run", "--", "sh", "-c", "kill -SEGV $$", cwd=tmp_path)
        assert done.returncode == 128 + signal.SIGSEGV
        assert "killed by SIGSEGV" in done.stderr

    def test_a_time_limit_ends_it(self, tmp_path: Path) -> None:
        done = measure("--out", "run", "--time-limit", "1 s", "--", "sleep", "60", cwd=tmp_path)
        assert done.returncode == 124
        assert membound.load(tmp_path / "run").about["ended"]["how"] == "timed-out"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_is_passed_on_and_ends_in_a_whole_run(self, number: signal.Signals, tmp_path: Path) -> None:
        script = "import signal, sys, time\n" + "".join(
            f"signal.signal(signal.{name}, lambda *_: (print('{name}', flush=True), sys.exit(5)))\n" for name in ("SIGINT", "SIGTERM")
        )
        script += "print('up', flush=True)\ntime.sleep(60)"
        process = subprocess.Popen(
            [*COMMAND, "--out", "run", "--", sys.executable, "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=tmp_path
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.read() == f"{number.name}\n"
        assert process.wait() == 5
        process.stdout.close()
        run = membound.load(tmp_path / "run")
        assert run.about["ended"] == {"how": "stopped", "said": f"stopped by {number.name}", "status": 5, "asked": number}
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.json", "tables"]


def test_an_interrupted_job_is_a_whole_run(job: str, tmp_path: Path) -> None:
    process = subprocess.Popen([*COMMAND, job, "--out", "run", "--steps", "100000"], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    marks = file_of(Place(tmp_path / "run").marks, 0)
    while not (marks.is_file() and '"what":"step"' in marks.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert "as far as it came: stopped by SIGINT" in " ".join(out.split())
    run = membound.load(tmp_path / "run")
    assert run.about["losses"]
    assert run.number("step.time")


def failed(tmp_path: Path, **failure: object) -> Place:
    """The folder of a Job of which one rank wrote down a failure."""
    place = Place(tmp_path)
    place.make()
    with Marks(file_of(place.marks, 0)):
        pass
    write_json(place.failure(0), {"t": 1, "rank": 0, "phase": "backward", "step": 2, "micro": 1, "type": "OutOfMemoryError", **failure})
    write_json(place.ended, {"status": 1, "asked": None, "timed_out": False})
    return place


def plan() -> Plan:
    """Any Job's plan."""
    return Plan({"gpus": 1}, {}, {}, "cuda", Options(), {"pid": os.getpid(), "began": 0.0}, 0)


def test_out_of_gpu_memory_is_an_answer(tmp_path: Path) -> None:
    text = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.03 GiB is free. "
        "Process 1 has 78.07 GiB memory in use. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF"
    )
    found = of(failed(tmp_path, kind="gpu-memory", text=text), plan())
    assert (found.how, found.fits.gpu, found.fits.host, found.answered) == ("gpu-memory", False, True, True)
    assert found.said == (
        "rank 0 ran out of GPU memory in backward of step 2, micro-step 1: CUDA out of memory. Tried to allocate 2.00 GiB. "
        "GPU 0 has a total capacity of 79.11 GiB of which 1.03 GiB is free."
    )


def test_the_kernels_own_count_tells_that_the_host_ran_out(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.make()
    write_json(place.ended, {"status": -9, "asked": None, "timed_out": False, "kernel_kills": 4, "kernel_kills_before": 3})
    found = of(place, plan())
    assert (found.how, found.fits.host) == ("host-memory", False)


def test_a_kill_by_somebody_else_is_a_failure(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.make()
    write_json(place.ended, {"status": -9, "asked": None, "timed_out": False, "kernel_kills": 3, "kernel_kills_before": 3})
    found = of(place, plan())
    assert (found.how, found.said, found.answered) == ("failed", "killed by SIGKILL", False)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("torch.OutOfMemoryError('CUDA out of memory')", "gpu-memory"),
        ("RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED')", "gpu-memory"),
        ("RuntimeError('[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory')", "host-memory"),
        ("MemoryError()", "host-memory"),
        ("InputError('a', 1, 'cure')", "refused"),
        ("RuntimeError('shape mismatch')", "error"),
        ("KeyboardInterrupt()", "error"),
    ],
)
def test_failures_are_told_apart(error: str, kind: str) -> None:
    import torch

    from membound.errors import InputError
    from membound.measure.worker_failure import describe

    raised = eval(error, {"torch": torch, "InputError": InputError})
    found = describe(raised, 3, {"phase": "forward", "step": 0, "micro": 0})
    assert (found["kind"], found["rank"], found["phase"]) == (kind, 3, "forward")
    assert isinstance(raised, MemboundError) == (kind == "refused")
