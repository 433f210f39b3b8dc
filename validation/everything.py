"""Everything that this project wants to know of a machine with one or two GPUs, in twenty minutes, without a network.

    python validation/everything.py OUT [--minutes 20] [--only STEP ...] [--list]      on the machine
    python validation/everything.py OUT --rehearse                                     on any computer: all that runs without a GPU

Into OUT go: what the machine is (environment.json), its sensors' answers as a recorded machine and what was probed of them (*.machine.json.gz,
probes.json), its kernels and the profile made of them (kernels.csv, GPU.yaml), 24 jobs as measured Runs (results.jsonl, series.tar), some of them
again with HBM bytes counted, and what the sampler costs a job (overhead.json). steps.json says how far each step is.

A second call goes on where the first was cut off, also on another machine of the same kind that is given OUT: what is done is left out.
Reads only: no clock, power limit or other setting of a card is touched (counting HBM bytes holds the clocks meanwhile, as CUPTI itself does).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "validation")]

import count_bytes  # noqa: E402
import measure_jobs  # noqa: E402
from job_table import CLASSES, COUNTED, JOBS, MORE, OVERHEAD, TINY, TWENTY_FOUR  # noqa: E402

from membound.errors import MemboundError  # noqa: E402
from membound.measure import here  # noqa: E402
from membound.measure.plan import Options  # noqa: E402
from membound.measure.sensors import readiness  # noqa: E402
from membound.measure.sensors.files import RealFiles  # noqa: E402
from membound.measure.source import Source  # noqa: E402
from membound.spec.job import Job  # noqa: E402
from membound.study import measuring  # noqa: E402

# Recorded machines that stand for one with a GPU in a rehearsal: one that was recorded, and one whose HBM bytes can be counted.
RECORDED, COUNTING = Source("h100-sxm"), Source("synthetic-h100")
# A step's own programs are ended so long after its time, s.
GRACE = 30.0
KERNELS = 200.0
# Time that one job may take under Nsight Compute, s: two milliseconds or more for each of some thousands of kernels.
PROFILED = 240.0
DONE, PARTLY, SKIPPED, FAILED = "done", "partly", "skipped", "failed"


@dataclass(frozen=True)
class Call:
    """What was asked."""

    out: Path
    rehearse: bool
    began: float
    seconds: float

    @property
    def left(self) -> float:
        """Time that is left, s."""
        return self.seconds - (time.monotonic() - self.began)


@dataclass(frozen=True)
class Step:
    """`run` returns what is still to be done, nothing if all is; `cannot` says why it cannot run here; with less than `least` s it is not begun."""

    run: Callable[[Call], str]
    least: float
    cannot: Callable[[Call], str] = lambda call: ""


def environment(call: Call) -> str:
    """Hardware, software, and what can be measured."""
    doctor = json.loads(_python(call, "-m", "membound", "doctor", "--json"))
    host = {**here.host(), "platform": platform.platform(), "python": platform.python_version()}
    _write(call.out / "environment.json", {"gpus": here.gpus(), "host": host, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "doctor": doctor})
    return ""


def sensors(call: Call) -> str:
    """Answers of all sensors while GPU 0 copies, and what documents leave open: costs, periods, GPM's valid windows and CUPTI beside GPM."""
    how = ["--seconds", "1", "--machine", RECORDED.machine] if call.rehearse else ["--seconds", "10", "--load"]
    about = "a rehearsal" if call.rehearse else "a copy of known bytes went on meanwhile"
    _python(call, "-m", "membound.measure.recorded", str(call.out), "--name", "measured", "--about", about, *how)
    return ""


def kernels(call: Call) -> str:
    """The calibration. In a rehearsal its dry run, which keeps nothing."""
    if call.rehearse:
        _python(call, "-m", "membound", "calibrate", "--dry", "--seconds", "60", "--json")
        return ""
    rows = call.out / "kernels.csv"
    heard = _python(call, str(ROOT / "validation/measure_kernels.py"), str(rows), "--seconds", f"{min(KERNELS, call.left - GRACE):.0f}", errors=True)
    # Into OUT by the GPU's own name: with MEMBOUND_PROFILES=OUT predictions find it there.
    _python(call, "-m", "membound", "calibrate", "--rows", str(rows), "--json", profiles=call.out)
    return "; ".join(line for line in heard.splitlines() if "no time left" in line or "cut off" in line)


def counted(call: Call) -> str:
    """HBM bytes of some jobs by CUPTI: repetitions of their own, beside which GPM's stand."""
    jobs, source = ({"tiny-full-2x256": TINY["tiny-full-2x256"]}, COUNTING) if call.rehearse else ({name: JOBS[name] for name in COUNTED}, Source())
    return ", ".join(measure_jobs.measure_all(jobs, call.out, call.left, "pm", source=source))


def cannot_count(call: Call) -> str:
    """Why no HBM bytes can be counted here, with the cure."""
    why, cure = readiness.counting(RealFiles())
    return "" if call.rehearse or not why else f"{why}: {cure}" if cure else why


def profiled(call: Call) -> str:
    """HBM bytes of the same jobs kernel by kernel by Nsight Compute, which leaves the clocks alone."""
    missing = []
    for name in COUNTED:
        if not call.rehearse and not count_bytes.count(name, call.out, min(PROFILED, call.left)):
            missing.append(name)
    return ", ".join(missing)


def cannot_profile(call: Call) -> str:
    """Why no kernel can be profiled here."""
    return "" if call.rehearse or count_bytes.profiler() else "Nsight Compute's ncu is not on the PATH"


def overhead(call: Call) -> str:
    """The same job with and without the sampler, in turns."""
    written = TINY["tiny-full-2x256"] if call.rehearse else JOBS[OVERHEAD]
    job = Job.model_validate({**written, "recipe": dict(written["recipe"])})
    options = Options(steps=8 if call.rehearse else 43, warm_up=3, weights="gpu", launcher="alone", time_limit=max(call.left, 1.0))
    with tempfile.TemporaryDirectory(prefix="membound-everything-") as scratch:
        run = measuring.measure_overhead(job, Path(scratch) / "run", options, repeats=1 if call.rehearse else 2)
    _write(call.out / "overhead.json", {"job": run.job, **run.about["overhead"]})
    return ""


def jobs(call: Call) -> str:
    """The 24 jobs, and more where time is left. In a rehearsal the tiny ones, on the processor."""
    wanted, source = (TINY, RECORDED) if call.rehearse else ({name: JOBS[name] for name in (*TWENTY_FOUR, *MORE, *CLASSES)}, Source())
    if call.rehearse:
        print("\n".join(f"{name:45} skipped: needs a GPU" for name in TWENTY_FOUR))
    return ", ".join(measure_jobs.measure_all(wanted, call.out, call.left, source=source))


STEPS: dict[str, Step] = {
    "environment": Step(environment, 20),
    "sensors": Step(sensors, 60),
    "kernels": Step(kernels, 60),
    "counted": Step(counted, 60, cannot_count),
    "profiled": Step(profiled, 60, cannot_profile),
    "overhead": Step(overhead, 120),
    "jobs": Step(jobs, 60),
}


def main() -> int:
    """Do what is not done yet until the time is up; 1 if a step failed."""
    asked = _arguments()
    if asked.list:
        print("\n".join(f"{name:12} {(step.run.__doc__ or '').splitlines()[0]}" for name, step in STEPS.items()))
        return 0
    if not asked.rehearse and not here.gpus():
        sys.exit("everything: no NVIDIA GPU is visible here: run it where there is one, or --rehearse what runs without")
    call = Call(Path(asked.out).absolute(), asked.rehearse, time.monotonic(), 60 * asked.minutes)
    call.out.mkdir(parents=True, exist_ok=True)
    kept = _read(call.out / "steps.json") or {"rehearsal": call.rehearse, "steps": {}}
    if kept["rehearsal"] != call.rehearse:
        sys.exit(f"everything: {call.out} holds {'a rehearsal' if kept['rehearsal'] else 'measurements'}: choose another folder")
    states: dict[str, dict[str, Any]] = kept["steps"]
    for name in asked.only or STEPS:
        if states.get(name, {}).get("state") != DONE:
            states[name] = _do(name, call)
            _write(call.out / "steps.json", kept)
        print(f"{name:12} {states[name]['state']:8} {states[name]['why']}", flush=True)
    if any(state["state"] == PARTLY for state in states.values()):
        print(f"the time is up: the same command goes on with what {call.out} does not hold yet")
    return int(any(state["state"] == FAILED for state in states.values()))


def _do(name: str, call: Call) -> dict[str, Any]:
    step, at = STEPS[name], time.monotonic()
    why = step.cannot(call)
    if why:
        return _state(SKIPPED, why, at)
    if call.left < step.least and not call.rehearse:
        return _state(PARTLY, f"not begun: {call.left:.0f} s are left, it needs {step.least:.0f}", at)
    try:
        missing = step.run(call)
    except (MemboundError, OSError, ValueError, subprocess.SubprocessError) as error:
        return _state(FAILED, str(error), at)
    return _state(PARTLY if missing else DONE, f"left: {missing}" if missing else "", at)


def _state(state: str, why: str, at: float) -> dict[str, Any]:
    return {"state": state, "why": why, "seconds": round(time.monotonic() - at, 1), "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def _python(call: Call, *arguments: str, errors: bool = False, profiles: Path | None = None) -> str:
    """Run Python with `arguments`; what it printed, or its errors if they are asked for. Raises `ValueError` with its last line if it failed.

    `profiles` is where calibrated profiles are read and written, if not where they usually are.
    """
    surroundings = os.environ if profiles is None else {**os.environ, "MEMBOUND_PROFILES": str(profiles)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, env=surroundings, timeout=max(call.left, 1.0) + GRACE
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ValueError(f"{' '.join(arguments[:3])} ended with {done.returncode}: {lines[-1] if lines else 'it said nothing'}")
    return done.stderr if errors else done.stdout


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _write(path: Path, document: Any) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(document, indent=1, default=_plain) + "\n")
    draft.replace(path)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default="build/everything", help="folder of what is found out")
    parser.add_argument("--minutes", type=float, default=20.0, help="begin nothing that would outlast this")
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help=f"some of: {', '.join(STEPS)}")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: tiny jobs on the processor, sensors of a recorded machine")
    parser.add_argument("--list", action="store_true", help="name the steps, and run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
