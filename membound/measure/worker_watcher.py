"""The Watcher of a real run: marks steps, micro-steps and phases, times them on the GPU as well, and counts what is fed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from membound.measure.marks import Marks
from membound.measure.worker_gpu_clock import GpuClock
from membound.measure.worker_memory import Memory
from membound.programs.world import Phase


class MarkingWatcher:
    """Is told by the Program; tells `marks`. A step ends when its GPU work has ended: the host waits for it there, and nowhere else."""

    def __init__(
        self, marks: Marks, memory: Memory, device: torch.device, loading: Callable[[], AbstractContextManager[Any]], where: dict[str, Any]
    ) -> None:
        """`loading` surrounds the phase load; `where` is kept up to date with what is going on, for whoever must say where it failed."""
        self._marks, self._memory, self._device = marks, memory, device
        self._loading, self._where = loading, where
        self._clock = GpuClock() if device.type == "cuda" else None
        self._open: dict[str, int] = {}
        self._loss: torch.Tensor | None = None
        self._fed: list[tuple[int, int, int]] = []

    @contextmanager
    def phase(self, name: Phase, step: int = -1, micro: int = -1) -> Iterator[None]:
        """Mark the phase, and the step and micro-step that it begins or ends."""
        self._where.update(phase=name, step=step, micro=micro)
        if name == "data":
            self._begin(step, micro)
        number = self._marks.begin("phase", name, step, micro)
        if self._clock is not None and step >= 0:
            self._clock.begin(number)
        with self._loading() if name == "load" else nullcontext():
            yield
        if self._clock is not None and step >= 0:
            self._clock.end(number)
        self._marks.end(number)
        self._memory.note()
        if name == "backward":
            self._end("micro-step")

    def watch_model(self, model: torch.nn.Module) -> None:
        """Count the parameters."""
        from membound.measure.worker_counting import count_parameters

        total, trained = count_parameters(model)
        self._marks.note("model", parameters=total, trained=trained)

    def tag(self, category: str, tensors: Any) -> None:
        """Categories are the ghost's to tell: here they would cost time inside the step."""

    def loss(self, step: int, loss: torch.Tensor) -> None:
        """Keep the last micro-step's loss until the GPU is waited for anyway."""
        self._loss = loss.detach()

    def fed(self, batch: dict[str, torch.Tensor], rows: int) -> None:
        """A micro-batch of so many rows, on the host, is about to be fed: they count, and their tokens, and those that are no padding."""
        ids, mask = batch.get("input_ids", batch.get("source")), batch.get("attention_mask")
        # Of images and plain samples each counts as a row of one.
        tokens = rows if ids is None else ids.numel()
        self._fed.append((rows, tokens, tokens if mask is None else int(mask.sum())))

    def step_done(self, step: int) -> None:
        """Wait for the GPU, then mark the end of the step with its loss and what was fed."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        ended = time.monotonic_ns()
        self._end("step")
        rows, tokens, useful = (sum(column) for column in zip(*self._fed, strict=True)) if self._fed else (0, 0, 0)
        loss = float(self._loss.float()) if self._loss is not None else None
        self._marks.note("step", step=step, ended=ended, loss=loss, rows=rows, tokens=tokens, useful=useful)
        if self._clock is not None:
            self._marks.note("gpu", spans=self._clock.spans())
        self._marks.flush()
        self._loss, self._fed = None, []

    def _begin(self, step: int, micro: int) -> None:
        if micro == 0:
            if self._clock is not None:
                torch.cuda.synchronize(self._device)
                self._clock.start()
            self._open["step"] = self._marks.begin("step", f"step {step}", step)
        number = self._open["micro-step"] = self._marks.begin("micro-step", f"micro-step {micro}", step, micro)
        if self._clock is not None:
            self._clock.begin(number)

    def _end(self, kind: str) -> None:
        number = self._open.pop(kind, None)
        if number is None:
            return
        # A step is the host's to time: it has waited for the GPU by then.
        if self._clock is not None and kind == "micro-step":
            self._clock.end(number)
        self._marks.end(number)
