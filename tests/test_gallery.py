"""The gallery: its page and its list agree, its commands can be asked, its pictures are there and small, and it can be drawn anew."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from membound.spec import jobfile
from membound.study.sweep import grid
from membound.study.sweep.grid import Axis

ROOT = Path(__file__).resolve().parent.parent


def loaded() -> ModuleType:
    """The script that builds it."""
    spec = importlib.util.spec_from_file_location("gallery_build", ROOT / "examples" / "gallery" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BUILD = loaded()
ENTRIES = BUILD.entries()
PAGE = (ROOT / "docs" / "gallery.md").read_text()
COMMANDS = sorted({command for entry in ENTRIES for command in entry.commands})
ON_JOBS = [command for command in COMMANDS if " compare " not in command]


def options(command: str, name: str) -> list[str]:
    words = shlex.split(command)
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def test_the_page_is_what_the_list_makes() -> None:
    told = BUILD.sentences(PAGE, ENTRIES)
    assert told.keys() == {entry.name for entry in ENTRIES}
    assert BUILD.page(ENTRIES, told) == PAGE


def test_every_entry_has_its_picture_and_all_are_small() -> None:
    found = {path.name: path for path in (ROOT / "docs" / "images" / "gallery").iterdir()}
    assert found.keys() == {entry.file for entry in ENTRIES}
    assert sum(path.stat().st_size for path in found.values()) < 1_000_000


@pytest.mark.parametrize("command", ON_JOBS)
def test_its_commands_can_be_asked(command: str) -> None:
    words, machine = shlex.split(command), (options(command, "--machine") or [None])[0]
    asked = jobfile.read(str(ROOT / words[2]), options(command, "--set"), machine)
    axes = [Axis.parse(text) for text in options(command, "--over")]
    if axes:
        grid.whole(asked.job, {axis.key: axis.values for axis in axes}, machine)


def test_compared_runs_are_made_before() -> None:
    for entry in ENTRIES:
        for command in entry.commands:
            if " compare " in command:
                made = {out for other in entry.commands for out in options(other, "--out")}
                assert set(shlex.split(command)[2:4]) <= made


def test_no_job_is_large() -> None:
    for command in ON_JOBS:
        job = jobfile.read(str(ROOT / shlex.split(command)[2]), options(command, "--set")).job
        assert not any(size in job.model for size in ("13b", "33b", "65b", "70b", "176b", "405b"))


@pytest.mark.usefixtures("tiny_trace")
@pytest.mark.parametrize(
    ("picture", "commands", "labels"),
    [
        ("swept", ["membound sweep JOB --over machine.gpu.power.limit=300W,450W --over machine.gpu.hbm.clock=8000MHz,10501MHz"], []),
        ("gained", ["membound sweep JOB --over machine.gpu.hbm.clock=8000MHz,10501MHz"] * 2, ["a", "b"]),
        ("memory", ["membound predict JOB"] * 2, ["a", "b"]),
        ("step", ["membound predict JOB"] * 2, ["a", "b"]),
        ("fitting", ["membound sweep JOB --over recipe.micro_batch=2"], []),
        ("raced", ["membound sweep JOB --over machine=rtx-4090,h100-sxm"], []),
        ("learned", ["membound measure JOB --out OUT --steps 4"], []),
        ("compared", ["membound predict JOB --out OUT/a", "membound predict JOB --out OUT/b", "membound compare OUT/a OUT/b"], []),
        ("timeline", ["membound predict JOB --out OUT/a"], []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_kind_of_picture_is_drawn_of_a_tiny_job(picture: str, commands: list[str], labels: list[str], tmp_path: Path) -> None:
    told = [command.replace("JOB", "examples/tiny.yaml").replace("OUT", str(tmp_path / "out")) for command in commands]
    entry = BUILD.Entry(picture, "Title", "About.", tuple(told), picture, tuple(labels))
    found: list[dict[str, Any]] = [BUILD.run(command) for command in told]
    says = BUILD.draw(entry, found, tmp_path / "pictures")
    assert says.endswith(".")
    content = (tmp_path / "pictures" / entry.file).read_bytes()
    assert content.startswith(b"\x89PNG" if entry.file.endswith("png") else b"<svg ")
    assert b"var(" not in content


def test_an_unknown_entry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nothing-such: no such entry"):
        BUILD.build(["nothing-such"], tmp_path)
