"""Every kernel, copy and fill of one step of real jobs, with its stream, start, length and launch: what predicted ones are held against.

    python validation/profile_jobs.py OUT NAME [NAME ...] [--seconds 120]      jobs of job_table.py, into OUT/NAME.profile.parquet

The Program runs by itself, on as many GPUs as the job has, under PyTorch's profiler, which asks CUPTI for activities: no clock is held and no
kernel runs apart from the others. One step, the seventh, is recorded, of every rank. A launch costs its host a microsecond or two more than it
does unwatched, so jobs that wait for their host are a little slower than they are; `bare` in the file's metadata is the mean time of steps before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "validation")]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from job_table import JOBS  # noqa: E402

from membound.measure.worker import Rank, join  # noqa: E402
from membound.measure.worker_weights import quickly  # noqa: E402
from membound.programs import registry  # noqa: E402
from membound.programs.world import Unwatched, World  # noqa: E402
from membound.spec import catalogue  # noqa: E402
from membound.spec.job import Job  # noqa: E402

# The step that is recorded, and those before it whose time is taken unwatched: the first ones make optimizer states and choose kernels.
STEP, BARE = 6, (3, 4, 5)
SUFFIX = ".profile.parquet"


class Stopped(Exception):
    """The recorded step is done: nothing after it is of interest."""


def main() -> int:
    """Profile the named jobs, or be a rank that is profiled."""
    asked = _arguments()
    if asked.rank_of:
        _rank(Path(asked.out), asked.rank_of)
        return 0
    out = Path(asked.out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    there = [profile(name, out, asked.seconds) for name in asked.names]
    return int(not all(there))


def profile(name: str, out: Path, seconds: float) -> bool:
    """One job; whether its file is there afterwards."""
    command = [sys.executable]
    if JOBS[name]["gpus"] > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={JOBS[name]['gpus']}"]
    command += [str(Path(__file__).resolve()), str(out), name, "--rank-of", name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    at, log = time.monotonic(), out / f"{name}.log"
    with log.open("w") as said:
        try:
            subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, timeout=seconds, env=environment, cwd=ROOT, check=False)
        except subprocess.TimeoutExpired:
            print(f"{name}: not done after {seconds:.0f} s", flush=True)
    there = (out / f"{name}{SUFFIX}").is_file()
    lines = log.read_text().splitlines()
    print(f"{name}: {lines[-1] if lines else 'nothing said'} ({time.monotonic() - at:.0f} s)", flush=True)
    if there:
        log.unlink()
    return there


def _rank(out: Path, name: str) -> None:
    job, rank = Job.model_validate({**JOBS[name], "recipe": dict(JOBS[name]["recipe"])}), Rank.here()
    device = torch.device("cuda", rank.local)
    torch.cuda.set_device(device)
    torch.zeros(1, device=device)
    join(job, device)
    program = registry.program(job, dict(catalogue.model_entry(job.model, job.allow_code).config))
    recorder = _Recorder(quickly(device if job.recipe.method != "qlora" else None))
    world = World(device, rank=rank.rank, size=rank.size, per_node=rank.per_node, watcher=recorder)
    with contextlib.suppress(Stopped):
        program.run(world, STEP + 1, program.batches(world))
    kept = out / (f"{name}{SUFFIX}" if rank.rank == 0 else f"{name}.rank{rank.rank}{SUFFIX}")
    count = recorder.keep(kept, torch.cuda.get_device_name(device))
    if rank.rank == 0:
        print(f"{count} activities, step {recorder.recorded:.4f} s, bare {recorder.bare:.4f} s", flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    # Threads and hooks that libraries leave behind have nothing left to do, and some of them hang.
    sys.stdout.flush()
    os._exit(0)


class _Recorder(Unwatched):
    """A Watcher that records one step on the GPU, and the host's phases in it."""

    def __init__(self, loading: contextlib.AbstractContextManager[Any]) -> None:
        """`loading` surrounds the phase load."""
        self._loading, self._profiler = loading, torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        self._times: dict[int, float] = {}
        self._phases: list[tuple[str, int, int, int]] = []
        self._began = time.perf_counter()

    @property
    def bare(self) -> float:
        """Mean time of the steps before the recorded one, s."""
        return sum(self._times[step] for step in BARE) / len(BARE)

    @property
    def recorded(self) -> float:
        """Time of the recorded step, s."""
        return self._times[STEP]

    @contextlib.contextmanager
    def phase(self, name: str, step: int = -1, micro: int = -1) -> Iterator[None]:
        """Begin to record with the recorded step's first phase."""
        if (name, micro) == ("data", 0):
            torch.cuda.synchronize()
            if step == STEP:
                self._profiler.__enter__()
            self._began = time.perf_counter()
        began = time.time_ns()
        with self._loading if name == "load" else contextlib.nullcontext():
            yield
        if step == STEP:
            self._phases.append((name, micro, began, time.time_ns()))

    def step_done(self, step: int) -> None:
        """End with the recorded step."""
        torch.cuda.synchronize()
        self._times[step] = time.perf_counter() - self._began
        if step == STEP:
            self._profiler.__exit__(None, None, None)
            raise Stopped

    def keep(self, path: Path, gpu: str) -> int:
        """Write one row an activity of the GPU (its launch beside it) and one a phase of the host: times in ns. How many there are."""
        events = self._profiler.profiler.kineto_results.events()
        calls = {each.correlation_id(): (each.name(), each.start_ns(), each.duration_ns()) for each in events if "CPU" in str(each.device_type())}
        rows: list[tuple[Any, ...]] = [
            (each.name(), each.device_resource_id(), each.start_ns(), each.duration_ns(), *calls.get(each.correlation_id(), ("", 0, 0)))
            for each in events if "CUDA" in str(each.device_type())
        ]  # fmt: skip
        rows += [(f"phase {name} {micro}", -1, began, ended - began, "", 0, 0) for name, micro, began, ended in self._phases]
        rows.sort(key=lambda row: row[2])
        columns = ("name", "stream", "start", "length", "call", "launched", "launching")
        table = pa.table({column: [row[at] for row in rows] for at, column in enumerate(columns)})
        about = {"bare": self.bare, "recorded": self.recorded, "gpu": gpu, "torch": torch.__version__}
        pq.write_table(table.replace_schema_metadata({"about": json.dumps(about)}), path, compression="zstd")
        return len(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("names", nargs="+", help="jobs of job_table.py")
    parser.add_argument("--seconds", type=float, default=120.0, help="time that one job may take, s")
    parser.add_argument("--rank-of", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
