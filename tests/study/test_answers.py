"""Kept answers: the same as those made anew, never those of another question, and gone when damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from membound.replay.allocator_settings import AllocatorSettings
from membound.run.schema import Run
from membound.spec import catalogue
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.study import answers
from membound.study.predicting import Predictor


@pytest.fixture
def machine() -> Machine:
    return catalogue.machine("rtx-4090").with_gpus(1)


@pytest.fixture
def run(tiny_job: Job, machine: Machine) -> Run:
    return Predictor(cached=False).predict(tiny_job, machine).run


def _key(job: Job, machine: Machine, settings: AllocatorSettings | None = None, *, advised: bool = True) -> str | None:
    return answers.key(job, machine, settings or AllocatorSettings(), advised=advised)


def test_a_kept_answer_says_what_was_answered(tmp_path: Path, run: Run) -> None:
    kept = answers.Answers(tmp_path)
    kept.put("key", run)
    found = kept.get("key")
    assert found is not None
    assert found.document() == {**run.document(), "about": {name: value for name, value in run.about.items() if name != "capture"}}
    assert found.tables["memory.holdings"].equals(run.tables["memory.holdings"])


@pytest.mark.parametrize("file", ["run/run.json", "run/tables/memory.holdings.parquet", "sums.json"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_damaged_answer_is_none_and_goes(tmp_path: Path, run: Run, file: str, damage: Callable[[Path], object]) -> None:
    kept = answers.Answers(tmp_path)
    kept.put("key", run)
    damage(tmp_path / "answers" / "key" / file)
    assert kept.get("key") is None
    assert not (tmp_path / "answers" / "key").exists()


def test_another_question_is_another_key(tiny_job: Job, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slower = machine.model_copy(update={"gpu": machine.gpu.model_copy(update={"name": "other"})})
    larger = tiny_job.model_copy(update={"recipe": tiny_job.recipe.model_copy(update={"accumulation": 8})})
    keys = [
        _key(tiny_job, machine),
        _key(tiny_job, slower),
        _key(larger, machine),
        _key(tiny_job, machine, AllocatorSettings(expandable_segments=True)),
        _key(tiny_job, machine, advised=False),
    ]
    assert _key(tiny_job, machine) == keys[0]
    monkeypatch.setenv("MEMBOUND_PROFILES", str(tmp_path))
    (tmp_path / "own.yaml").write_text("gpu: rtx-4090\n")
    keys.append(_key(tiny_job, machine))
    (tmp_path / "own.yaml").write_text("gpu: rtx-4080\n")
    keys.append(_key(tiny_job, machine))
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_a_users_own_files_are_read_each_time(tiny_job: Job, machine: Machine, tmp_path: Path) -> None:
    job = tiny_job.model_copy(update={"data": tiny_job.data.model_copy(update={"path": str(tmp_path / "lengths.txt")})})
    assert _key(job, machine) is None
