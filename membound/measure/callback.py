"""A callback for the Hugging Face Trainer: marks its optimizer steps, micro-steps and losses for `membound measure -- COMMAND`.

trainer = Trainer(..., callbacks=[MarkingCallback()])
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from membound.measure.user_marks import own
from membound.measure.worker_memory import Memory


class MarkingCallback(TrainerCallback):
    """Waits for the GPU at the end of each step, so that a step's mark is the step's time. Writes nothing where nobody measures."""

    def __init__(self) -> None:
        self._marks = own()
        self._step: int | None = None
        self._micro: int | None = None
        self._micros = 0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """An optimizer step begins, with its first micro-step."""
        if self._marks is not None:
            self._step = self._marks.begin("step", "step", state.global_step)
            self._micros = 0
            self._micro = self._marks.begin("micro-step", "micro-step", state.global_step, 0)

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A micro-step that is not the step's last has ended; the next begins."""
        if self._marks is not None and self._micro is not None:
            self._marks.end(self._micro)
            self._micros += 1
            self._micro = self._marks.begin("micro-step", "micro-step", state.global_step, self._micros)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The optimizer has stepped."""
        if self._marks is None or self._step is None:
            return
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        for number in (self._micro, self._step):
            if number is not None:
                self._marks.end(number)
        self._step = self._micro = None

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Losses, as the Trainer logs them: means over its logging interval."""
        loss = (kwargs.get("logs") or {}).get("loss")
        if self._marks is not None and loss is not None:
            self._marks.note("step", step=state.global_step - 1, loss=float(loss))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """What PyTorch's allocators say of the whole training."""
        if self._marks is not None:
            device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
            self._marks.note("peaks", **Memory(self._marks, device, period=1.0).peaks())
