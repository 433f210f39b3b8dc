"""Quantising and dequantising of 4- and 8-bit weights: bytes in, wider bytes out, a look-up per element between."""

from __future__ import annotations

from typing import Final, final

from membound.cost.law import Kernels
from membound.cost.streaming import Streaming

_NAMES: Final = """
    dequantize_4bit dequantize_blockwise quantize_4bit quantize_blockwise gemv_4bit int8_vectorwise_quant int8_mm_dequant
""".split()


@final
class Quantisation(Streaming):
    """bitsandbytes' 4-bit and 8-bit conversions."""

    family = "quantisation"
    operators = frozenset(f"bitsandbytes.{name}" for name in _NAMES)

    def rates(self, kernels: Kernels) -> list[str]:
        return ["quantisation"] * len(kernels)
