"""What the README tells a reader to type works: its commands are taken from its text."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from membound.spec import jobfile

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition(" #")[0].partition(" |")[0].strip() for _, block in BLOCKS for line in block.splitlines()]
PREDICTIONS = [shlex.split(c) for c in COMMANDS if c.startswith("membound predict examples/")]
SHORT = [shlex.split(c) for c in COMMANDS if re.match(r"membound (catalogue|doctor)", c)]


def test_the_first_screen_names_the_two_commands() -> None:
    top = "\n".join(README.splitlines()[:20])
    assert "make study" in top
    assert "make test" in top
    for target in ("study", "test"):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", PREDICTIONS, ids=" ".join)
def test_predictions_can_be_asked(command: list[str]) -> None:
    job, options = command[2], command[3:]
    changes = [options[i + 1] for i, word in enumerate(options) if word == "--set"]
    machine = options[options.index("--machine") + 1] if "--machine" in options else None
    assert jobfile.read(str(ROOT / job), changes, machine).job.model


@pytest.mark.parametrize("command", SHORT, ids=" ".join)
def test_short_commands_run(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_job_file_is_a_job(tmp_path: Path) -> None:
    text = next(block for language, block in BLOCKS if language == "yaml")
    path = tmp_path / "job.yaml"
    path.write_text(text)
    asked = jobfile.read(str(path))
    assert asked.job.model == yaml.safe_load(text)["model"]


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
