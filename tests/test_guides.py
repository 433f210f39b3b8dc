"""The guides cannot rot: what they tell a reader to type can be asked, their links lead somewhere, files and folders that they name are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from membound.spec import jobfile

ROOT = Path(__file__).resolve().parent.parent
GUIDES = ("quickstart", "concepts", "study", "extending", "gallery")
TEXTS = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in GUIDES}
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXTS["quickstart"], re.DOTALL)
COMMANDS = [line.partition(" #")[0].strip() for _, block in BLOCKS for line in block.splitlines()]
PREDICTIONS = [shlex.split(command) for command in COMMANDS if command.startswith("membound predict examples/")]
FILES = sorted({path for text in TEXTS.values() for path in re.findall(r"`(membound/[a-z0-9_/.-]+\.(?:py|yaml|json)|membound/[\w/]+)`", text)})


@pytest.mark.parametrize("command", PREDICTIONS, ids=" ".join)
def test_predictions_can_be_asked(command: list[str]) -> None:
    options = command[3:]
    changes = [options[at + 1] for at, word in enumerate(options) if word == "--set"]
    machine = options[options.index("--machine") + 1] if "--machine" in options else None
    assert jobfile.read(str(ROOT / command[2]), changes, machine).job.model


def test_the_job_is_a_job(tmp_path: Path) -> None:
    text = next(block for language, block in BLOCKS if language == "yaml")
    (tmp_path / "job.yaml").write_text(text)
    assert jobfile.read(str(tmp_path / "job.yaml")).job.model == yaml.safe_load(text)["model"]


@pytest.mark.parametrize("name", GUIDES)
def test_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", TEXTS[name])
    assert all((ROOT / "docs" / target.partition("#")[0]).exists() for target in targets), targets


@pytest.mark.parametrize("path", FILES)
def test_files_that_are_named_are_there(path: str) -> None:
    assert (ROOT / path).exists()
