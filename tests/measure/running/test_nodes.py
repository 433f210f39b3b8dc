"""Two nodes, each with its own sampler and its own Run, that become one Run on one clock."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import membound
from membound.errors import InputError, RecordError, UnlikeError
from membound.measure.nodes import merge
from membound.run.schema import Run

from .conftest import COMMAND, measure


@pytest.fixture(scope="module")
def nodes(job: str, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The Runs of two nodes that trained one Job of two ranks together; both nodes are this machine."""
    place = tmp_path_factory.mktemp("nodes")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    asked = [job, "--steps", "4", "--set", "gpus=2", "--set", "recipe.engine=ddp", "--nodes", "2", "--rendezvous", f"127.0.0.1:{port}"]
    processes = [subprocess.Popen([*COMMAND, *asked, "--node-rank", str(rank), "--out", f"node-{rank}"], cwd=place) for rank in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    return [membound.load(place / f"node-{rank}") for rank in range(2)]


def test_each_node_holds_its_own_ranks(nodes: list[Run]) -> None:
    assert [sorted(run.about["ranks"]) for run in nodes] == [["0"], ["1"]]


def test_merged_ranks_step_at_the_same_time(nodes: list[Run]) -> None:
    run = merge(nodes)
    marks = run.tables["marks"]
    assert set(marks["rank"].to_pylist()) == {0, 1}
    for step in range(4):
        rows = marks.filter(pc.and_(pc.equal(marks["kind"], "step"), pc.equal(marks["step"], step))).to_pylist()
        # Ranks wait for each other in every backward: on one clock their steps overlap, though each node's Run began at another time.
        (one, other) = rows
        assert max(one["start"], other["start"]) < min(one["end"], other["end"])
    assert run.about["nodes"][1]["clock_shift_s"] != 0


def test_what_the_nodes_do_together_is_added(nodes: list[Run]) -> None:
    run = merge(nodes[::-1])
    parts = [each.number("samples.rate") or 0.0 for each in nodes]
    assert run.number("samples.rate") == pytest.approx(sum(parts))
    assert run.number("step.time") == max(each.number("step.time") or 0.0 for each in nodes)
    assert run.machine["nodes"] == 2
    assert set(run.tables["host"]["node"].to_pylist()) == {0, 1}


def test_the_clocks_of_other_machines_are_laid_over_each_other(nodes: list[Run]) -> None:
    """A node whose clock stands an hour off, as other machines' do, gives the same merged Run."""
    hour = 3_600_000_000_000
    about: dict[str, Any] = dict(nodes[1].about)
    about["epoch_ns"] += hour
    about["meetings"] = {rank: [t + hour for t in times] for rank, times in about["meetings"].items()}
    strayed = merge([nodes[0], dataclasses.replace(nodes[1], about=about)])
    assert strayed.tables["marks"] == merge(nodes).tables["marks"]


def test_gpus_are_numbered_through(nodes: list[Run]) -> None:
    gpu = pa.table({"time": [0.0, 0.0], "gpu": pa.array([0, 1], pa.int32()), "power": [100.0, 200.0]})
    both = [dataclasses.replace(run, tables={**run.tables, "gpu": gpu}) for run in nodes]
    assert merge(both).tables["gpu"]["gpu"].to_pylist() == [0, 1, 2, 3]


def test_nodes_that_do_not_belong_together_are_refused(nodes: list[Run], run: Run) -> None:
    with pytest.raises(UnlikeError, match="nodes 0, 0"):
        merge([nodes[0], nodes[0]])
    with pytest.raises(InputError, match="two or more"):
        merge(nodes[:1])
    with pytest.raises(UnlikeError, match="different jobs: recipe"):
        merge([run, nodes[1]])
    with pytest.raises(RecordError, match="never met"):
        merge([nodes[0], dataclasses.replace(nodes[1], about={**nodes[1].about, "meetings": {}})])


def test_the_command_line_merges(nodes: list[Run], tmp_path: Path) -> None:
    from membound.run import store

    for run, name in zip(nodes, ("a", "b"), strict=True):
        store.write(run, tmp_path / name)
    done = measure("--merge", "a", "--merge", "b", "--out", "both", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert membound.load(tmp_path / "both").machine["nodes"] == 2
