"""`membound sweep` as people and scripts meet it: tables, files, one line for each mistake; clocks on a simulated driver only."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from membound.measure.clocks import simulated_board as board
from membound.run import store
from tests.commands import from_nothing, membound

TINY = "model: tiny\ndata: {seq_len: 256}\nrecipe: {micro_batch: 2}\nmachine: rtx-4090\n"
CLOCK = "machine.gpu.hbm.clock"
BOTH = f"{CLOCK}=1593MHz,2619MHz"


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`membound sweep` with `arguments`, as a process of its own that sees no GPU."""
    return membound("sweep", *arguments, stdin=stdin, CUDA_VISIBLE_DEVICES="", **environment)


@pytest.fixture(autouse=True)
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No real driver can be reached from here, whatever machine this is: NVML's bindings do not load."""
    stand_in = tmp_path / "without-nvml"
    stand_in.mkdir()
    (stand_in / "pynvml.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(stand_in))


@pytest.fixture
def job(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.mark.usefixtures("tiny_trace")
class TestPredicted:
    def test_json_is_one_document_and_nothing_else(self, job: str) -> None:
        done = run(job, "--json", "--over", f"{CLOCK}=5GHz,10GHz", "--over", "machine.gpu.hbm.capacity=300MiB,24GiB", "--over", "gpus=1,2")
        assert (done.returncode, done.stderr) == (0, "")
        document = json.loads(done.stdout)
        assert [axis["key"] for axis in document["axes"]] == [CLOCK, "machine.gpu.hbm.capacity", "gpus"]
        assert len(document["points"]) == 8
        asked, refused = document["points"][:2]
        assert asked["at"] == {CLOCK: "5GHz", "machine.gpu.hbm.capacity": "300MiB", "gpus": 1}
        assert asked["fits"]["gpu"] is False
        assert asked["gain"] == {"value": 0.0, "unit": "1"}
        assert "2 GPUs need ddp, fsdp or deepspeed" in refused["refused"]

    def test_people_get_a_table_and_reasons(self, job: str) -> None:
        done = run(job, "--over", "machine=rtx-4090,h200", "--over", "gpus=1,2", COLUMNS="80")
        assert (done.returncode, done.stderr) == (0, "")
        assert "2 not asked: recipe.engine: 'none': 2 GPUs need" in " ".join(done.stdout.split())
        assert max(map(len, done.stdout.splitlines())) <= 80
        assert done.stdout.count("launch") == 2

    def test_a_terminal_of_ascii_alone_gets_ascii_alone(self, job: str) -> None:
        done = from_nothing("sweep", job, "--over", f"{CLOCK}=5GHz,10GHz", PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()

    def test_standard_input_and_changes_of_job_and_machine(self) -> None:
        arguments = ["-", "--json", "--over", f"{CLOCK}=5GHz", "--set", "machine.gpu.hbm.capacity=1 TiB", "--set", "recipe.accumulation=2"]
        document = json.loads(run(*arguments, stdin=TINY).stdout)
        assert document["machine"]["gpu"]["hbm"]["capacity"] == 2**40
        assert document["job"]["recipe"]["accumulation"] == 2

    def test_a_folder_of_results_with_each_point_as_a_run(self, job: str, tmp_path: Path) -> None:
        out = tmp_path / "out"
        done = run(job, "--over", f"{CLOCK}=5GHz,10GHz", "--out", str(out), "--runs")
        assert (done.returncode, done.stderr) == (0, "")
        steps = pq.read_table(out / "sweep.parquet").column("step.time_s").to_pylist()
        assert [store.read(out / "runs" / name).number("step.time") for name in "12"] == steps


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--over: '': write KEY=VALUE,VALUE"),
        (["--over", CLOCK], f"--over: '{CLOCK}': write KEY=VALUE,VALUE"),
        (["--over", f"{CLOCK}="], "has no values"),
        (["--over", "machine.gpu.hbm.clok=1GHz"], "unknown key; did you mean clock?"),
        (["--over", f"{CLOCK}=1593MB"], "write a quantity such as '2619 MHz'"),
        (["--over", f"{CLOCK}=1GHz", "--over", f"{CLOCK}=2GHz"], f"--over: '{CLOCK}': give each field once"),
        (["--over", "recipe.micro_batch=1,2", "--set", "recipe.micro_batch=4"], "--over: 'recipe.micro_batch': give each field once"),
        (["--over", f"{CLOCK}=2GHz", "--set", f"{CLOCK}=1GHz"], f"--over: '{CLOCK}': give each field once"),
        (["--over", "machine=h200", "--machine", "h100-sxm"], "leave it out"),
        (["--over", "gpus=2,4"], "no point of this sweep can be asked"),
        (["--over", f"{CLOCK}=1GHz", "--out", "/dev/null/x"], "/dev/null/x"),
        (["--over", "recipe.micro_batch=1,2", "--measure"], "a measured sweep switches the memory clock"),
        (["--over", BOTH, "--over", "gpus=1", "--measure"], "a measured sweep is over the memory clock alone"),
        (["--over", BOTH, "--measure", "--set", "machine.gpu.l2=1 MiB"], "only fields of the job can be set"),
        (["--over", BOTH, "--measure", "--driver", "simulated:/no/where"], "no simulated machine is there"),
    ],
)
@pytest.mark.usefixtures("tiny_trace")
def test_each_mistake_is_one_line(arguments: list[str], told: str, job: str, tmp_path: Path) -> None:
    done = run(job, *arguments, MEMBOUND_STATE=str(tmp_path / "state"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("membound: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["JOB", "--dry-run", "--over", BOTH], ["JOB", "--runs", "--over", BOTH], ["JOB", "--resume", "plan.json"]])
def test_wrong_usage_has_a_status_of_its_own(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")


class TestMeasured:
    """The driver is simulated, and the job runs on the CPU."""

    @pytest.fixture
    def machine(self, tmp_path: Path) -> Path:
        board.create(tmp_path / "machine", {"GPU-a": "switchable"})
        return tmp_path / "machine"

    def sweep(self, job: str, machine: Path, *arguments: str, over: str = BOTH) -> subprocess.CompletedProcess[str]:
        more = ["--measure", "--driver", f"simulated:{machine}", "--over", over, "--steps", "4", "--out", str(machine.parent / "out"), *arguments]
        return run(job, *more, MEMBOUND_STATE=str(machine.parent / "state"))

    def test_a_dry_run_prints_the_calls_and_makes_none(self, job: str, machine: Path) -> None:
        done = self.sweep(job, machine, "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split("(")[0].split()[-1] for line in done.stdout.splitlines() if line.startswith("call")] == [
            "nvmlDeviceSetMemoryLockedClocks", "nvmlDeviceResetMemoryLockedClocks",
        ]  # fmt: skip
        assert board.calls(machine) == []

    def test_each_clock_is_set_measured_and_given_back(self, job: str, machine: Path) -> None:
        done = self.sweep(job, machine, "--json")
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        assert (document["origin"], document["refused"]) == ("measured", None)
        assert [point["at"][CLOCK] for point in document["points"]] == [1_593_000_000, 2_619_000_000]
        for point, name in zip(document["points"], ("1593MHz", "2619MHz"), strict=True):
            measured = store.read(machine.parent / "out" / name)
            assert (measured.origin, measured.number("step.time")) == ("measured", point["values"]["step.time"]["value"])
            assert point["clocks"]["GPU-a"]["memory"] == [point["at"][CLOCK]] * 2
        assert board.read(machine)["gpus"]["GPU-a"]["locked_memory_mhz"] is None

    @pytest.mark.usefixtures("tiny_trace")
    def test_without_permission_one_line_says_so_and_the_sweep_is_predicted(self, job: str, machine: Path) -> None:
        board.fault(machine, no_permission=True)
        done = self.sweep(job, machine, "--json", over=f"{CLOCK}=1593MHz")
        assert done.returncode == 0
        assert len(done.stderr.splitlines()) == 1
        assert "CAP_SYS_ADMIN" in done.stderr
        assert done.stderr.endswith("predicted instead\n")
        document = json.loads(done.stdout)
        assert (document["origin"], document["points"][0]["at"]) == ("predicted", {CLOCK: "1593MHz"})
        assert (document["measured"]["points"], "CAP_SYS_ADMIN" in document["measured"]["refused"]) == ([], True)

    @pytest.mark.usefixtures("tiny_trace")
    def test_without_a_driver_likewise(self, job: str) -> None:
        done = run(job, "--measure", "--over", BOTH)
        assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
        assert "without which no driver can be asked" in done.stderr
        assert "1593MHz" in done.stdout

    def test_a_plan_is_walked_with_resume(self, job: str, machine: Path) -> None:
        board.create(machine, {"GPU-a": "h100-sxm"})
        state = str(machine.parent / "state")
        done = self.sweep(job, machine, "--json", over=f"{CLOCK}=1593MHz")
        assert done.returncode == 0, done.stderr
        plan = json.loads(done.stdout)["plan"]
        assert json.loads(run("--resume", plan, "--json", MEMBOUND_STATE=state).stdout)["did"] == "nothing"
        # A person locks the clock and loads the driver anew.
        board.change(machine, lambda found: found["gpus"]["GPU-a"].update(default_memory_mhz=1593))
        resumed = run("--resume", plan, MEMBOUND_STATE=state)
        assert resumed.returncode == 0, resumed.stderr
        assert resumed.stdout.startswith("measured at 1593 MHz\n")
        assert "--reset-memory-clocks-deferred" in resumed.stdout
        assert store.read(machine.parent / "out" / "1593MHz").origin == "measured"

    def test_a_job_that_fails_is_told_in_its_own_words_and_the_clock_is_given_back(self, job: str, machine: Path) -> None:
        done = self.sweep(job, machine, "--steps", "0", over=f"{CLOCK}=1593MHz")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "at 1593 MHz: " in done.stderr
        assert board.read(machine)["gpus"]["GPU-a"]["locked_memory_mhz"] is None
        assert len(board.calls(machine)) == 2
