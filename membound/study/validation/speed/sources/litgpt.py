"""Lightning-AI/litgpt, tutorials/resource-tables.md: minutes for 1,000 iterations, commit 8641822, A100-SXM-40GB, Alpaca."""

from __future__ import annotations

from typing import Final

from membound.study.validation.outcome import LeftOut
from membound.study.validation.rows import Row
from membound.study.validation.speed.outcome import SpeedOutcome

# lit_gpt/lora.py of that time, LoRAQKVLinear.zero_pad: torch.tensor(self.lora_ind, device=...) of a Python list of twice the hidden size, in each
# adapted layer of each forward, a copy that the host waits for. Its maintainers say so (Lightning-AI/litgpt issue 461); their pull request 630, of
# eleven days before the table, measured 0.83 ms for each call on a T4, 0.13 ms without; it was not merged by then.
_WAITS: Final = "lit-gpt's LoRA of October 2023 makes its index from a Python list and waits for the GPU in each layer (its issue 461)"


def outcome(row: Row) -> SpeedOutcome:
    """What row `row` of the table becomes."""
    if "adapter" in row.task:
        return LeftOut(row, "method not modelled", "LLaMA-Adapter")
    return LeftOut(row, "adapters not modelled", _WAITS)
