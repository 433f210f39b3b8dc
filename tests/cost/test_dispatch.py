"""Which fused attention kernel runs: cuDNN's where PyTorch puts it first, the Trace's elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from membound.cost.attention_backward import AttentionBackward
from membound.cost.attention_forward import AttentionForward
from membound.cost.dispatch import dispatched
from membound.cost.law import Kernels
from membound.spec import catalogue

CUDNN = ("9.0", "10.0")


def kernels(op: str, dtype: str = "bfloat16") -> Kernels:
    shape = (dtype, (2, 32, 1024, 128))
    one = np.ones(1)
    return Kernels((op,), ((shape,) * 4,), ((shape,),), 1e11 * one, 1e8 * one, 1e7 * one, 1e8 * one)


@pytest.mark.parametrize("name", catalogue.machines())
@pytest.mark.parametrize("kind", ["flash", "efficient", "cudnn"])
@pytest.mark.parametrize("end", [".default", "_backward.default"])
def test_the_card_decides(name: str, kind: str, end: str) -> None:
    gpu = catalogue.machine(name).gpu
    given = kernels(f"aten._scaled_dot_product_{kind}_attention{end}")
    found = dispatched(given, gpu)
    kept = "cudnn" if gpu.compute_capability in CUDNN else kind
    assert found.op == (f"aten._scaled_dot_product_{kept}_attention{end}",)
    law = AttentionBackward() if "backward" in end else AttentionForward()
    assert law.knows(found.op[0])
    assert law.price(found, gpu).seconds[0] <= law.price(given, gpu).seconds[0]


@pytest.mark.parametrize("op", ["flash_attn._flash_attn_forward.default", "aten.mm.default"])
def test_others_stay(op: str) -> None:
    gpu = catalogue.machine("h100-sxm").gpu
    assert dispatched(kernels(op), gpu).op == (op,)
    assert dispatched(kernels("aten._scaled_dot_product_flash_attention.default", "float32"), gpu).op[0].startswith("aten._scaled_dot_product_flash")


def test_a_mask_that_is_learned_keeps_its_kernel_backward() -> None:
    gpu = catalogue.machine("h200").gpu
    shape, mask, one = ("bfloat16", (16, 16, 512, 64)), ("bfloat16", (16, 16, 512, 512)), np.ones(1)
    op = "aten._scaled_dot_product_efficient_attention_backward.default"
    for written, kept in (((shape,) * 3 + (mask,), True), ((shape,) * 3, False)):
        given = Kernels((op,), ((*((shape,) * 4), mask, shape),), (written,), 1e11 * one, 1e8 * one, 1e7 * one, 1e8 * one)
        assert (dispatched(given, gpu).op[0] == op) is kept
