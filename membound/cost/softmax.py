"""Softmax and losses over classes: rows of the vocabulary, read once or twice."""

from __future__ import annotations

from typing import Final, final

from membound.cost.law import Kernels
from membound.cost.streaming import Streaming

_NAMES: Final = """
    _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data _safe_softmax nll_loss_forward nll_loss_backward nll_loss2d_forward
    nll_loss2d_backward binary_cross_entropy binary_cross_entropy_backward cross_entropy_loss _masked_softmax
""".split()


@final
class Softmax(Streaming):
    """Softmax, log-softmax and the losses on them, with their backwards."""

    family = "softmax"
    operators = frozenset(f"aten.{name}" for name in _NAMES) | {"membound.liger_cross_entropy", "membound.liger_cross_entropy_backward"}

    def rates(self, kernels: Kernels) -> list[str]:
        return [_rate(op) for op in kernels.op]


def _rate(op: str) -> str:
    if "nll" in op or "binary" in op:
        return "nll_backward" if "backward" in op else "nll"
    kind = "log_softmax" if "log_softmax" in op or "cross_entropy" in op else "softmax"
    return f"{kind}_backward" if "backward" in op else kind
