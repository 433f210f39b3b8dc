"""The command that starts a Job's ranks on this node: alone, by torchrun, or by DeepSpeed's launcher."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from membound.errors import InputError
from membound.measure.plan import Launcher, Nodes, Plan

_WORKER: Final = "membound.measure.worker"


def command(plan: Plan, folder: Path) -> list[str]:
    """The command line that runs `plan`'s Job, whose files lie in `folder`. Raises `InputError` for a launcher that cannot start it."""
    ranks, nodes = int(plan.job["gpus"]), plan.options.nodes
    if ranks % nodes.count:
        raise InputError("--nodes", nodes.count, f"the Job's {ranks} GPUs do not divide by it")
    chosen = launcher(plan)
    if chosen == "alone":
        if ranks > 1:
            raise InputError("--launcher", "alone", f"starts one process, the Job has {ranks} GPUs: write torchrun")
        return [sys.executable, "-m", _WORKER, str(folder)]
    if chosen == "deepspeed":
        return _by_deepspeed(ranks, nodes, folder)
    return _by_torchrun(ranks // nodes.count, nodes, folder)


def launcher(plan: Plan) -> Launcher:
    """Who starts the Job: as the plan says, or else whoever would by custom."""
    asked, ranks = plan.options.launcher, int(plan.job["gpus"])
    if asked != "auto":
        return asked
    if ranks == 1:
        return "alone"
    # DeepSpeed's launcher counts GPUs; on a CPU it counts NUMA nodes. Several nodes it would reach by ssh: here each is started by itself.
    wanted = plan.job["recipe"]["engine"] == "deepspeed" and plan.device == "cuda" and plan.options.nodes.count == 1
    return "deepspeed" if wanted and _installed("deepspeed") else "torchrun"


def environment(plan: Plan, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of the ranks: `base` with what every launcher's children need."""
    changed: dict[str, Any] = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if plan.device == "cpu" and "OMP_NUM_THREADS" not in base and int(plan.job["gpus"]) > 1:
        changed["OMP_NUM_THREADS"] = "1"  # as torchrun sets it, with a warning
    return {**base, **changed}


def _by_torchrun(per_node: int, nodes: Nodes, folder: Path) -> list[str]:
    where = ["--standalone"] if nodes.count == 1 else [f"--nnodes={nodes.count}", f"--node-rank={nodes.rank}", *_meeting(nodes)]
    start = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={per_node}", "--max-restarts=0"]
    return [*start, *where, "-m", _WORKER, str(folder)]


def _meeting(nodes: Nodes) -> list[str]:
    host, _, port = nodes.rendezvous.rpartition(":")
    if not host or not port.isdigit():
        raise InputError("--rendezvous", nodes.rendezvous, "write HOST:PORT of the first node")
    # Static: node 0 serves, and ranks follow the nodes' numbers.
    return ["--rdzv-backend=static", f"--master-addr={host}", f"--master-port={port}"]


def _by_deepspeed(ranks: int, nodes: Nodes, folder: Path) -> list[str]:
    if nodes.count > 1:
        raise InputError("--launcher", "deepspeed", "starts other nodes by ssh, where nobody would sample them: write torchrun, on each node")
    if not _installed("deepspeed"):
        raise InputError("--launcher", "deepspeed", "the package is not installed: pip install 'membound[deepspeed]', or write torchrun")
    start = [sys.executable, "-m", "deepspeed.launcher.runner", f"--num_gpus={ranks}", f"--master_port={_free_port()}"]
    # Without that word it would put an argument of its own before ours.
    return [*start, "--no_local_rank", "--module", _WORKER, str(folder)]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
