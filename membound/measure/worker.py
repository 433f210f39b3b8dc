"""One rank of a measured Job: runs the Program that the ghost runs, for real, and marks what it does.

    python -m membound.measure.worker FOLDER                                 alone
    python -m torch.distributed.run ... -m membound.measure.worker FOLDER    as one of several

Everything that it has to say goes into FOLDER/raw. Exit status 0: all steps done; 1: see failure-RANK.json.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import psutil
import torch
import torch.distributed as dist
import transformers

from membound.errors import MemboundError
from membound.measure import marks
from membound.measure.place import Place, read_json, write_json
from membound.measure.plan import Plan
from membound.measure.worker_driver import used_memory
from membound.measure.worker_failure import describe
from membound.measure.worker_memory import Memory
from membound.measure.worker_watcher import MarkingWatcher
from membound.measure.worker_weights import quickly
from membound.programs import registry
from membound.programs.causal_lm import CausalLM
from membound.programs.program import Batch, Batches, Program
from membound.programs.world import World
from membound.spec.job import Job

# How often ranks meet so that nodes' clocks can be laid over each other: enough for a median.
_MEETINGS: Final = 9
# Micro-batches that are made before the first step, where loaders have them ready: 300 images each fill a gigabyte.
_MADE: Final = 4
# Longest that a mark may wait to be written, s: at the end of a step, when nothing is timed, or else after so long.
_PATIENCE: Final = 0.3
_COLLECTIVE_LIMIT: Final = timedelta(minutes=10)


@dataclass(frozen=True)
class Rank:
    """This process among those of the Job, as torchrun and DeepSpeed's launcher say by environment."""

    rank: int
    local: int
    size: int
    per_node: int

    @classmethod
    def here(cls) -> Rank:
        """From the environment; the only one where nothing is said."""
        rank, local, size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")))
        return cls(rank, local, size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))


class _Stopped(BaseException):
    """This rank was asked to end: by its launcher, since another rank failed, or by whoever measures."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped


def main() -> None:
    """Run the rank that the environment names of the plan in the folder on the command line."""
    place = Place(Path(sys.argv[1]))
    plan, rank = Plan.read(read_json(place.plan)), Rank.here()
    threading.Thread(target=_end_with_parent, args=(plan,), daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    status = 0
    where: dict[str, Any] = {"phase": "start", "step": -1, "micro": -1}
    with marks.Marks(marks.file_of(place.marks, rank.rank), _PATIENCE) as notes:
        try:
            _run(plan, rank, notes, where)
        # Whoever asked for that knows why.
        except _Stopped:
            status = 1
        # Also what is no Exception: a program may call sys.exit.
        except BaseException as error:
            status = 1
            if not isinstance(error, MemboundError):
                traceback.print_exc()
            write_json(place.failure(rank.rank), describe(error, rank.rank, where))
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads and hooks that libraries leave behind have nothing left to do, and some of them hang.
    os._exit(status)


def _run(plan: Plan, rank: Rank, notes: marks.Marks, where: dict[str, Any]) -> None:
    job, options = Job.model_validate(plan.job), plan.options
    device = torch.device("cuda", rank.local) if plan.device == "cuda" else torch.device("cpu")
    notes.note("rank", rank=rank.rank, local=rank.local, size=rank.size, per_node=rank.per_node, node=options.nodes.rank, **_hardware(device))
    _limit(options.host_limit)
    _make_context(device, notes)
    join(job, device)
    program = registry.program(job, dict(plan.config))
    # Transformers loads this when it is first touched: code is no tensor.
    _ = transformers.AutoModelForCausalLM
    notes.note("ready", rss=psutil.Process().memory_info().rss)
    memory = Memory(notes, device, options.period)
    watcher = MarkingWatcher(notes, memory, device, _loading(plan, device), where)
    world = World(device, rank=rank.rank, size=rank.size, per_node=rank.per_node, watcher=watcher)
    _meet(plan, notes)
    try:
        with memory:
            program.run(world, options.steps, _batches(plan, program, world, watcher))
        _meet(plan, notes)
    finally:
        used = used_memory(_uuid(device)) if device.type == "cuda" else None
        notes.note("peaks", used=used, **memory.peaks())
    notes.note("done")
    # Here, where a disk that refuses is the run's failure.
    notes.flush()
    if dist.is_initialized():
        dist.destroy_process_group()


def _hardware(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"gpu": None, "uuid": None, "threads": torch.get_num_threads()}
    torch.cuda.set_device(device)
    properties = torch.cuda.get_device_properties(device)
    return {"gpu": properties.name, "uuid": _uuid(device), "capacity": properties.total_memory, "versions": {"cuda": torch.version.cuda}}


def _uuid(device: torch.device) -> str:
    return str(torch.cuda.get_device_properties(device).uuid)


def _limit(nbytes: float | None) -> None:
    """From here on this process may hold only so much data on the host. What its libraries took so far counts."""
    if nbytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(nbytes), resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _make_context(device: torch.device, notes: marks.Marks) -> None:
    """Make the CUDA context, and ask the driver what it takes before there is anything else."""
    if device.type != "cuda":
        return
    torch.zeros(1, device=device)
    torch.cuda.synchronize(device)
    notes.note("context", reserved=torch.cuda.memory_reserved(device), used=used_memory(_uuid(device)))


def join(job: Job, device: torch.device) -> None:
    """Meet the other ranks, where the engine needs a process group, be it of one."""
    if job.recipe.engine == "none":
        return
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()))
    if device.type == "cuda":
        dist.init_process_group("nccl", timeout=_COLLECTIVE_LIMIT, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=_COLLECTIVE_LIMIT)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _meet(plan: Plan, notes: marks.Marks) -> None:
    """Leave a barrier together with all ranks and note when, some times over: by this nodes' clocks are laid over each other."""
    if plan.options.nodes.count == 1:
        return
    # On the hosts, whatever carries the gradients: nothing is launched on any GPU.
    group = dist.new_group(backend="gloo", timeout=_COLLECTIVE_LIMIT)
    for _ in range(_MEETINGS):
        dist.barrier(group)
        notes.note("meet")
    dist.destroy_process_group(group)


def _loading(plan: Plan, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    # 4-bit weights are quantised one by one as they move to the GPU: made there, all of them would lie there dense first.
    on_gpu = plan.options.weights == "gpu" and plan.job["recipe"]["method"] != "qlora"
    return lambda: quickly(device if on_gpu else None)


def _batches(plan: Plan, program: Program, world: World, watcher: MarkingWatcher) -> Batches:
    """Micro-batches as the plan wants them, each counted as it is fed."""
    source = program.batches(world) if plan.options.feed == "rows" else _always(program.planned())
    # Transformers' Trainer pads rows when they are asked for, unless told otherwise (`dataloader_num_workers` 0); other recipes' loaders have
    # micro-batches ready, in processes of their own.
    if not isinstance(program, CausalLM):
        source = in_turn(source)

    def batch(index: int) -> Batch:
        rows = source(index)
        watcher.fed(rows, program.job.recipe.micro_batch)
        return rows

    return batch


def in_turn(source: Batches) -> Batches:
    """The first micro-batches of `source`, made now, over and over: images and samples would take longer to make up than the step takes."""
    made = [source(index) for index in range(_MADE)]
    return lambda index: made[index % _MADE]


def _always(batch: Batch) -> Batches:
    return lambda index: batch


def _end_with_parent(plan: Plan) -> None:
    # Nobody would read what is measured from here on, and the GPU would stay taken.
    while plan.alive():
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
