"""Kernels that Triton generates have laws: whatever the ghost records of Liger and of Inductor."""

from __future__ import annotations

import numpy as np
import pytest

from membound.cost.law import Kernels
from membound.cost.laws import LAWS, law_of
from membound.ghost.compiled import KERNEL
from membound.ghost.liger_operators import _OPERATORS
from membound.spec import catalogue

LIGER = [f"liger_kernel.{schema.partition('(')[0]}.default" for schema in _OPERATORS]


@pytest.mark.parametrize("op", [*LIGER, KERNEL, "bitsandbytes.fill", "aten.rsqrt_.default", "aten.rand.default"])
def test_what_the_ghost_records_has_a_law(op: str) -> None:
    assert law_of(op) != len(LAWS) - 1


@pytest.mark.parametrize("name", ["h100-sxm", "a100-sxm-80gb", "rtx-4090"])
def test_a_fused_kernel_takes_what_its_bytes_take_whatever_their_types(name: str) -> None:
    gpu = catalogue.machine(name).gpu
    shape = (8192, 4096)
    reads = ((("bfloat16", shape), ("float32", shape)),)
    nbytes = np.array([6.0 * shape[0] * shape[1]])
    written = nbytes / 3
    kernels = Kernels((KERNEL,), reads, ((("bfloat16", shape),),), np.zeros(1), nbytes, written, nbytes + written)
    seconds = LAWS[law_of(KERNEL)].price(kernels, gpu).seconds[0]
    least = float((nbytes + written)[0]) / gpu.hbm.bandwidth
    assert least < seconds < 1.4 * least


def test_liger_goes_through_long_rows_of_logits_once_more() -> None:
    op = "liger_kernel.cross_entropy.default"
    logits = ("bfloat16", (8192, 128256))
    size = np.array([2.0 * 8192 * 128256])
    kernels = Kernels((op,), ((logits, ("int64", (8192,))),), ((logits,),), np.zeros(1), size, size, 2 * size)
    law, gpu = LAWS[law_of(op)], catalogue.machine("h100-sxm").gpu
    assert law.beyond(kernels, gpu)[0][0] > 0
    assert law.price(kernels, gpu).seconds[0] > 2 * size[0] / gpu.hbm.bandwidth
