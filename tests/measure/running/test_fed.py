"""What is fed for real: micro-batches of recipes whose loaders run ahead are made before the first step, and rows count as rows."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import pytest
import torch

from membound.measure import here
from membound.measure.worker import in_turn
from membound.measure.worker_watcher import MarkingWatcher


def test_micro_batches_are_made_now_and_come_in_turn() -> None:
    made: list[int] = []

    def source(index: int) -> dict[str, torch.Tensor]:
        made.append(index)
        return {"images": torch.full((1,), index)}

    batches = in_turn(source)
    before = list(made)
    given = [int(batches(index)["images"]) for index in range(10)]
    assert made == before == [0, 1, 2, 3]
    assert given == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


class Notes:
    """Marks that are kept in a list."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def note(self, what: str, **facts: Any) -> None:
        self.said.append({"what": what, **facts})

    def flush(self) -> None: ...


@pytest.mark.parametrize(("batch", "tokens", "useful"), [
    ({"source": torch.ones(50, 128), "target": torch.ones(51, 128)}, 6400, 6400),  # tokens first, as cuDNN's recurrent kernels want them
    ({"images": torch.ones(128, 3, 8, 8)}, 128, 128),
    ({"input_ids": torch.ones(128, 4), "attention_mask": torch.tensor([[1, 1, 0, 0]] * 128)}, 512, 256),
])  # fmt: skip
def test_rows_are_the_micro_batch_s_whatever_stands_first(batch: dict[str, torch.Tensor], tokens: int, useful: int) -> None:
    notes = Notes()
    watcher = MarkingWatcher(cast(Any, notes), cast(Any, None), torch.device("cpu"), contextlib.nullcontext, {})
    watcher.fed(batch, 128)
    watcher.step_done(0)
    assert {key: notes.said[-1][key] for key in ("rows", "tokens", "useful")} == {"rows": 128, "tokens": tokens, "useful": useful}


class TestNumbers:
    """Which GPUs a job of so many ranks uses, as the driver counts them."""

    @pytest.mark.parametrize(("visible", "ranks", "numbers"), [
        (None, 1, [0]), (None, 2, [0, 1]), ("2,3", 1, [2]), ("2,3", 2, [2, 3]), ("1", 2, None), ("GPU-aa", 1, None), ("9", 1, None),
    ])  # fmt: skip
    def test_the_first_of_those_that_it_may_see(
        self, monkeypatch: pytest.MonkeyPatch, visible: str | None, ranks: int, numbers: list[int] | None
    ) -> None:
        monkeypatch.setattr(here, "_driver_names", lambda: ["NVIDIA H200"] * 4)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert here.numbers(ranks) == numbers

    def test_of_unlike_gpus_it_is_not_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(here, "_driver_names", lambda: ["NVIDIA H200", "NVIDIA L40S"])
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert here.numbers(1) is None
