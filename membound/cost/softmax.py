"""Softmax and losses over classes: rows of the vocabulary, read once or several times.

What operators do inside (PyTorch 2.11 to 2.13, ATen/native/cuda/SoftMax.cu, ATen/native/SoftMax.cpp, ATen/native/cuda/NLLLoss2d.cu), beside the
bytes that Nsight Compute counted of each on an H200 (validation/h200/bytes):

- Rows of up to 1,024 elements stay in a warp's registers; longer ones are gone through three times forward (the largest, the sum, the result),
  twice backward, unless the L2 keeps them meanwhile: 1.75 of three times at 32,000 classes of fp32, three at 65,000 and 152,000.
- The backward of softmax multiplies gradient and result by a kernel of its own first, into a temporary.
- `_safe_softmax`, which attention without a fused kernel takes, looks for rows that are masked whole: a comparison, a reduction of what it says,
  and a choice between result and zero.
- Liger's cross-entropy goes through a row for its largest element and its sum together, and again to leave the gradient in its place
  (src/liger_kernel/ops/cross_entropy.py); not counted.
- Losses on log-probabilities pick one element of a row; their backward fills all rows with zeros and reads none.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final, final

import numpy as np
import numpy.typing as npt

from membound.cost.dtypes import element_size
from membound.cost.law import Array, Kernels, Priced
from membound.cost.profile import Profile
from membound.cost.streaming import Streaming
from membound.spec.machine import Gpu

_NAMES: Final = """
    _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data _safe_softmax nll_loss_forward nll_loss_backward nll_loss2d_forward
    nll_loss2d_backward binary_cross_entropy binary_cross_entropy_backward cross_entropy_loss _masked_softmax
""".split()

UNREAD: Final = frozenset({"aten.nll_loss_forward", "aten.nll_loss2d_forward", "aten.nll_loss_backward", "aten.nll_loss2d_backward"})
"""Operators that read hardly anything, backward nothing, of operands as large as their result or larger: an element of each row."""

# Rows that one warp holds in registers, elements.
_IN_REGISTERS: Final = 1024
# Rows that each SM works at, by the threads that their blocks have; and the share of the L2 from which on such rows begin to leave: of twice as
# much none stays. By the counted bytes of rows of 32,000 to 152,000 classes.
_ROWS_PER_SM: Final = 2
_ROWS_STAY: Final = 0.4
# The same for a temporary of the whole size, which nothing reads before all of it is written.
_STAYS: Final = 0.3


@final
class Softmax(Streaming):
    """Softmax, log-softmax and the losses on them, with their backwards."""

    family = "softmax"
    operators = frozenset(f"aten.{name}" for name in _NAMES) | {"liger_kernel.cross_entropy"}

    def rates(self, kernels: Kernels) -> list[str]:
        return [_rate(op) for op in kernels.op]

    def priced(self, kernels: Kernels, gpu: Gpu, profile: Profile) -> Priced:
        found, safe = super().priced(kernels, gpu, profile), _are(kernels, "_safe_softmax")
        if not safe.any():
            return found
        rate = profile.rate("pointwise")
        read, written = self.beyond(kernels, gpu)
        more = np.where(safe, (read + written) / (gpu.hbm.bandwidth * rate.efficiency), 0.0)
        starts = np.where(safe, _MASKING_KERNELS * rate.fixed, 0.0)
        seconds = found.seconds + more + starts
        compute, memory = found.compute * found.seconds / seconds, (found.memory * found.seconds + more) / seconds
        return replace(found, seconds=seconds, compute=compute, memory=memory, fixed=1.0 - compute - memory)

    def beyond(self, kernels: Kernels, gpu: Gpu) -> tuple[Array, Array]:
        results = [writes[0] if writes else ("float32", (0,)) for writes in kernels.writes]
        elements = np.array([math.prod(sizes) for _, sizes in results], np.float64)
        width = np.array([element_size(dtype) for dtype, _ in results], np.float64)
        rows = np.array([sizes[-1] if sizes else 0 for _, sizes in results], np.float64)
        whole = elements * width
        passes = _again(kernels) * (rows > _IN_REGISTERS) * _leaves(rows * width * _ROWS_PER_SM * gpu.sms, _ROWS_STAY * gpu.l2)
        gone = _leaves(whole, _STAYS * gpu.l2)
        product, safe = gone * _are(kernels, "_softmax_backward_data"), gone * _are(kernels, "_safe_softmax")
        # One byte for each element says whether it is masked.
        return whole * (passes + 2 * product + 2 * safe) + elements * safe, whole * (product + safe) + elements * safe


# Launches of `_safe_softmax` after softmax itself.
_MASKING_KERNELS: Final = 4


def _leaves(used: Array, stays: float) -> Array:
    """Share of `used` bytes that is gone from the L2 when it is read again."""
    return np.asarray(np.clip(used / stays - 1, 0.0, 1.0), np.float64)


def _again(kernels: Kernels) -> Array:
    """How many times more than once long rows are gone through."""
    passes = {"liger_kernel": 1, "_softmax": 2, "_safe_softmax": 2, "_log_softmax": 2, "_softmax_backward_data": 1, "_log_softmax_backward_data": 1}
    return np.array([passes.get(_name(op), 0) for op in kernels.op], np.float64)


def _are(kernels: Kernels, name: str) -> npt.NDArray[np.bool_]:
    return np.array([_name(op) == name for op in kernels.op], np.bool_)


def _name(op: str) -> str:
    return op.removeprefix("aten.").split(".")[0]


def _rate(op: str) -> str:
    if "nll" in op or "binary" in op:
        return "nll_backward" if "backward" in op else "nll"
    kind = "log_softmax" if "log_softmax" in op or "cross_entropy" in op else "softmax"
    return f"{kind}_backward" if "backward" in op else kind
