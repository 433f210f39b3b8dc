"""What softmax and its losses move beyond their operands, beside bytes that Nsight Compute counted on an H200 (validation/h200/bytes)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from membound.cost.law import Kernels
from membound.cost.laws import LAWS, law_of
from membound.cost.softmax import UNREAD
from membound.spec import catalogue

H200 = catalogue.machine("h200").gpu
LOGITS = {"llama": (2048, 32_000), "falcon": (2048, 65_024), "qwen": (4096, 152_064)}


def kernels(op: str, *sizes: int) -> Kernels:
    """One of `op` that reads two fp32 tensors and writes one, all of HBM."""
    shape = ("float32", sizes)
    nbytes = 4.0 * math.prod(sizes)
    return Kernels((op,), ((shape, shape),), ((shape,),), np.zeros(1), np.array([nbytes]), np.array([nbytes]), np.array([2 * nbytes]))


def beyond(op: str, *sizes: int) -> tuple[float, float]:
    """Read and written beyond the operands, in tensors."""
    read, written = LAWS[law_of(op)].beyond(kernels(op, *sizes), H200)
    nbytes = 4.0 * math.prod(sizes)
    return float(read[0]) / nbytes, float(written[0]) / nbytes


@pytest.mark.parametrize(("op", "model", "counted"), [
    # GB that cunn_SoftMaxForward and cunn_SoftMaxBackward moved, all in all.
    ("aten._log_softmax.default", "llama", 0.72), ("aten._log_softmax.default", "falcon", 2.11), ("aten._log_softmax.default", "qwen", 9.97),
    ("aten._log_softmax_backward_data.default", "llama", 1.00), ("aten._log_softmax_backward_data.default", "falcon", 2.14),
    ("aten._log_softmax_backward_data.default", "qwen", 9.98),
])  # fmt: skip
def test_long_rows_are_gone_through_as_often_as_was_counted(op: str, model: str, counted: float) -> None:
    once = 3 if "backward" in op else 2
    moved = (once + sum(beyond(op, *LOGITS[model]))) * 4 * math.prod(LOGITS[model])
    assert moved == pytest.approx(counted * 1e9, rel=0.15)


def test_rows_that_a_warp_holds_are_read_once() -> None:
    assert beyond("aten._softmax.default", 1 << 16, 1024) == (0, 0)


def test_the_backward_of_softmax_multiplies_first() -> None:
    assert beyond("aten._softmax_backward_data.default", 1 << 17, 1024) == (2, 1)
    assert beyond("aten._softmax_backward_data.default", 1 << 10, 1024) == (0, 0)


def test_a_safe_softmax_looks_for_masked_rows_and_takes_its_time() -> None:
    read, written = beyond("aten._safe_softmax.default", 1 << 17, 1024)
    assert (read, written) == (2.25, 1.25)
    plain, safe = (LAWS[law_of(op)].price(kernels(op, 1 << 17, 1024), H200) for op in ("aten._softmax.default", "aten._safe_softmax.default"))
    # 3.5 tensors more than the two that a softmax moves.
    assert 2 < safe.seconds[0] / plain.seconds[0] < 3.5
    assert safe.compute + safe.memory + safe.fixed == pytest.approx(1)


def test_losses_read_hardly_anything_of_the_logits() -> None:
    assert {LAWS[law_of(op)].family for op in UNREAD} == {"softmax"}
    assert {"aten.nll_loss_forward", "aten.nll_loss_backward"} <= UNREAD
