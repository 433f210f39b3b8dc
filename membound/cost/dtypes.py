"""Types of numbers as PyTorch names them: their size, and the peak rate at which a GPU multiplies them."""

from __future__ import annotations

from typing import Final

from membound.spec.machine import DType, Gpu

_SIZES: Final = {
    "bool": 1, "uint8": 1, "int8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1, "int16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "float32": 4, "int64": 8, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip
_RATES: Final[dict[str, DType]] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64", "int8": "int8"}


def element_size(dtype: str) -> int:
    """Bytes of one element; 1 for what has no type of its own, such as raw bytes."""
    return _SIZES.get(dtype, 1)


def peak(gpu: Gpu, dtype: str) -> float:
    """Dense peak rate of matrix products of `dtype`, FLOP/s at `Clock.boost`; fp32 runs outside the tensor cores, as PyTorch's default has it.

    A type that the GPU multiplies no faster, or not at all, runs at its fp32 rate.
    """
    name = _RATES.get(dtype)
    if name is None:
        return gpu.peaks.fp32
    rates = {"bf16": gpu.peaks.bf16, "fp16": gpu.peaks.fp16, "fp64": gpu.peaks.fp64, "int8": gpu.peaks.int8}
    return rates.get(name) or gpu.peaks.fp32


def convolution_peak(gpu: Gpu, dtype: str) -> float:
    """Dense peak rate at which cuDNN multiplies `dtype`, FLOP/s at `Clock.boost`: fp32 in TF32, which PyTorch allows it by default
    (torch.backends.cudnn.allow_tf32), though not cuBLAS."""
    return gpu.peaks.tf32 or gpu.peaks.fp32 if dtype == "float32" else peak(gpu, dtype)
