"""`membound report` as people meet it: where the page goes, what it says, one line for each mistake."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from membound.cli.report import labels
from tests.commands import membound


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`membound report` with `arguments`, as a process of its own."""
    return membound("report", *map(str, arguments))


def test_the_page_lies_next_to_the_run(on_disk: Callable[..., Path], tmp_path: Path) -> None:
    done = run(on_disk("fast"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"written to {tmp_path / 'report' / 'index.html'}\n"
    assert "<h1>llama-7b</h1>" in (tmp_path / "report" / "index.html").read_text()


def test_runs_share_a_page_with_a_title_in_a_folder_of_choice(on_disk: Callable[..., Path], tmp_path: Path) -> None:
    done = run(on_disk("a"), on_disk("b"), "--out", tmp_path / "out", "--title", "A <and> B")
    assert done.returncode == 0
    text = (tmp_path / "out" / "index.html").read_text()
    assert "<h1>A &lt;and&gt; B</h1>" in text
    assert "GPU busy, a" in text


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/run", "y/run"], ["x/run", "y/run"]),
        (["run", "run"], ["run (1)", "run (2)"]),
        (["run"], ["run"]),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(folders: list[str], names: list[str]) -> None:
    assert labels([Path(folder) for folder in folders]) == names


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("membound: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path.parent / "report").exists()


def test_a_page_of_others_is_refused_in_one_line(on_disk: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    done = run(on_disk(), "--out", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "choose another folder" in done.stderr
    assert (tmp_path / "index.html").read_text() == "mine"


def test_without_runs_there_is_nothing_to_report() -> None:
    assert run().returncode == 2
