"""Marks in the user's own training code, by context manager or by callback, while a command is watched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import membound
from membound.measure import marking

from .conftest import measure

LOOP = """
import time
import membound.measure as measure
from membound.measure.user_marks import note_step

for step in range(6):
    with measure.marking("step", step=step):
        with measure.marking("forward", step=step, micro=0):
            time.sleep(0.02)
        with measure.marking("my own part"):
            time.sleep(0.01)
    note_step(step, loss=6.0 - step, rows=2, tokens=20, useful=10)
"""

TRAINER = """
import torch, transformers
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from membound.measure.callback import MarkingCallback

config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)} for _ in range(16)]
arguments = TrainingArguments("out", per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=4, logging_steps=1, report_to=[],
                              save_strategy="no", use_cpu=True)
Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows, callbacks=[MarkingCallback()]).train()
"""


def test_blocks_become_marks(tmp_path: Path) -> None:
    done = measure("--out", "run", "--", sys.executable, "-c", LOOP, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = membound.load(tmp_path / "run")
    rows = run.tables["marks"].to_pylist()
    assert {(row["kind"], row["name"]) for row in rows} == {("step", "step"), ("phase", "forward"), ("mark", "my own part")}
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(6))
    assert run.about["losses"] == [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    step, forward = run.number("step.time"), run.number("step.time.forward")
    assert step is not None
    assert forward is not None
    assert 0.02 <= forward < step
    assert run.number("tokens.rate") == pytest.approx(20 / 2 * (run.number("samples.rate") or 0.0))


def test_the_trainers_callback_marks_its_steps(tmp_path: Path) -> None:
    done = measure("--out", "run", "--", sys.executable, "-c", TRAINER, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = membound.load(tmp_path / "run")
    rows = run.tables["marks"].to_pylist()
    assert [row["step"] for row in rows if row["kind"] == "step"] == [0, 1, 2, 3]
    assert [(row["step"], row["micro"]) for row in rows if row["kind"] == "micro-step"] == [(step, micro) for step in range(4) for micro in (0, 1)]
    assert len(run.about["losses"]) == 4
    assert run.number("step.time")


def test_unmeasured_code_marks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with marking("step", step=0):
        pass
    assert list(tmp_path.iterdir()) == []
