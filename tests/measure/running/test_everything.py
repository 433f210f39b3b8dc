"""The script that does all measurements in one go: what it does again after a cut, and what it says of what it cannot do."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "validation" / "everything.py"


@pytest.fixture(scope="module")
def script() -> Any:
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        spec = importlib.util.spec_from_file_location("everything", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module: ModuleType = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "everything", module)
        spec.loader.exec_module(module)
        yield module


def call(script: Any, out: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["everything.py", str(out), "--rehearse", *arguments])
    return int(script.main())


def test_what_is_done_is_left_out_and_what_is_not_is_tried_again(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []
    outcomes = {"whole": "", "cut": "two jobs", "broken": ValueError("the disk is full")}

    def step(name: str) -> Any:
        def run(call: Any) -> str:
            begun.append(name)
            if isinstance(outcome := outcomes[name], Exception):
                raise outcome
            return str(outcome)

        return script.Step(run, 0)

    nowhere = script.Step(lambda call: pytest.fail("it cannot run here"), 0, lambda call: "no counters: pip install them")
    monkeypatch.setattr(script, "STEPS", {name: step(name) for name in outcomes} | {"nowhere": nowhere})
    assert call(script, tmp_path, monkeypatch=monkeypatch) == 1
    told = capsys.readouterr().out
    assert "left: two jobs" in told
    assert "failed   the disk is full" in told
    assert "skipped  no counters: pip install them" in told
    assert "goes on with what" in told
    outcomes |= {"cut": "", "broken": ""}
    assert call(script, tmp_path, monkeypatch=monkeypatch) == 0
    assert begun == ["whole", "cut", "broken", "cut", "broken"]
    states = json.loads((tmp_path / "steps.json").read_text())
    assert {name: state["state"] for name, state in states["steps"].items()} == {**dict.fromkeys(outcomes, "done"), "nowhere": "skipped"}


def test_a_step_that_would_outlast_the_time_is_not_begun(script: Any, tmp_path: Path) -> None:
    late = script.Call(tmp_path, rehearse=False, began=time.monotonic() - 100, seconds=130)
    state = script._do("kernels", late)
    assert state["state"] == "partly"
    assert "not begun: 30 s are left, it needs 60" in state["why"]


def test_a_rehearsal_and_measurements_do_not_share_a_folder(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "steps.json").write_text(json.dumps({"rehearsal": False, "steps": {}}))
    with pytest.raises(SystemExit, match="holds measurements: choose another folder"):
        call(script, tmp_path, monkeypatch=monkeypatch)


def test_without_a_gpu_it_says_how_to_rehearse(tmp_path: Path) -> None:
    bare = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, SCRIPT, tmp_path / "out"], capture_output=True, text=True, env=bare)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("--rehearse what runs without")
    assert not (tmp_path / "out").exists()


def test_the_jobs_are_those_that_were_asked_for(script: Any) -> None:
    recipes = [script.JOBS[name] for name in script.TWENTY_FOUR]
    assert len({*script.TWENTY_FOUR}) == 24
    assert {*script.COUNTED, script.OVERHEAD} <= {*script.TWENTY_FOUR}
    assert {recipe["recipe"].get("method", "full") for recipe in recipes} == {"full", "lora", "qlora"}
    sharded = {(recipe["recipe"].get("zero_stage"), "offload" in recipe["recipe"]) for recipe in recipes if recipe["gpus"] == 2}
    assert sharded == {(None, False), *((stage, offload) for stage in (1, 2, 3) for offload in (False, True))}


def names(out: Path) -> list[str]:
    results = out / "results.jsonl"
    return [json.loads(line)["name"] for line in results.read_text().splitlines()] if results.is_file() else []


def test_killed_over_its_jobs_it_goes_on_and_measures_each_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), str(out), "--rehearse", "--only", "counted", "jobs"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not names(out):
            assert first.poll() is None, "it ended without a result"
            time.sleep(0.02)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    # As if the machine had gone over the writing of a line.
    with (out / "results.jsonl").open("a") as file:
        file.write('{"name": "tiny-full')
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "counted      done" in done.stdout
    sharded = ["2x-tiny-fsdp-2x256", *(["2x-tiny-zero1-2x256"] if importlib.util.find_spec("deepspeed") else [])]
    assert sorted(names(out)) == [*sharded, "tiny-full-2x256", "tiny-full-2x256@pm"]
    records = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert all(record["error"] is None for record in records)
    counted = next(record["run"]["values"] for record in records if record["name"].endswith("@pm"))
    assert counted["hbm.traffic.read"]["value"] > 0
    with tarfile.open(out / "series.tar") as tar:
        assert {Path(name).parts[0] for name in tar.getnames()} == set(names(out))
    assert not list(out.glob("running-*"))
