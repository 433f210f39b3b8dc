"""Who starts a Job's ranks, and with what words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from membound.errors import InputError
from membound.measure import launch
from membound.measure.plan import Nodes, Options, Plan

FOLDER = Path("run")


def plan(gpus: int = 1, engine: str = "none", device: Any = "cuda", **options: Any) -> Plan:
    """The plan of a Job."""
    return Plan({"gpus": gpus, "recipe": {"engine": engine}}, {}, {}, device, Options(**options), {}, 0)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (plan(), "alone"),
        (plan(engine="deepspeed"), "alone"),
        (plan(2, "ddp"), "torchrun"),
        (plan(2, "fsdp", "cpu"), "torchrun"),
        (plan(2, "deepspeed"), "deepspeed"),
        (plan(2, "deepspeed", "cpu"), "torchrun"),
        (plan(4, "deepspeed", nodes=Nodes(2, 0, "a:1")), "torchrun"),
        (plan(1, launcher="torchrun"), "torchrun"),
    ],
)
def test_the_launcher_is_the_customary_one(asked: Plan, chosen: str) -> None:
    assert launch.launcher(asked) == chosen


def test_each_launcher_starts_the_same_worker() -> None:
    commands = [launch.command(asked, FOLDER) for asked in (plan(), plan(2, "ddp"), plan(2, "deepspeed"))]
    for command in commands:
        assert command[0] == sys.executable
        assert command[-2:] == ["membound.measure.worker", "run"]


def test_each_node_starts_its_own_share() -> None:
    command = launch.command(plan(16, "fsdp", nodes=Nodes(2, 1, "10.0.0.1:29500")), FOLDER)
    for word in ("--nproc-per-node=8", "--nnodes=2", "--node-rank=1", "--master-addr=10.0.0.1", "--master-port=29500"):
        assert word in command


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (plan(3, "ddp", nodes=Nodes(2, 0, "a:1")), "--nodes"),
        (plan(2, "ddp", nodes=Nodes(2, 0, "nowhere")), "--rendezvous"),
        (plan(2, "ddp", launcher="alone"), "--launcher"),
        (plan(2, "deepspeed", launcher="deepspeed", nodes=Nodes(2, 0, "a:1")), "--launcher"),
    ],
)
def test_what_cannot_be_started_is_refused_by_name(asked: Plan, field: str) -> None:
    with pytest.raises(InputError) as refused:
        launch.command(asked, FOLDER)
    assert refused.value.field == field
