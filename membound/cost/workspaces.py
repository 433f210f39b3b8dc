"""cuBLAS workspaces: PyTorch takes one from its caching allocator for each thread and stream that multiplies matrices, and keeps it.

cublasLt shares it (TORCH_CUBLASLT_UNIFIED_WORKSPACE, on by default in PyTorch 2.13), so there is one size.
"""

from __future__ import annotations

from typing import Final

from membound.spec.machine import Architecture

_KIB = 1 << 10
_MIB = 1 << 20

# ':4096:2:16:8', the default: two of 4096 KiB and eight of 16 KiB: PyTorch 2.13 aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize.
_DEFAULT = 2 * 4096 * _KIB + 8 * 16 * _KIB
# 'use32mb' for compute capability 9, 10 and 12: the same function; Blackwell since pull request 175344 (February 2026).
_LARGE = 32 * _MIB
# 'default_size' under USE_ROCM for other than gfx950: the same function.
_ROCM = 32 * _MIB

_SIZES: Final[dict[Architecture, int]] = {
    "pascal": _DEFAULT,
    "volta": _DEFAULT,
    "turing": _DEFAULT,
    "ampere": _DEFAULT,
    "ada": _DEFAULT,
    "hopper": _LARGE,
    "blackwell": _LARGE,
    "cdna3": _ROCM,
}

# Operators whose CUDA kernels ask for a cuBLAS handle: PyTorch aten/src/ATen/native/cuda/Blas.cpp, ScaledBlas.cpp, and CUDABlas.cpp below them.
OPERATORS: Final = frozenset(
    f"aten.{name}"
    for name in (
        "mm", "addmm", "_addmm_activation", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "linear", "matmul", "_scaled_mm",
        "_int_mm",
    )
)  # fmt: skip


def size(architecture: Architecture) -> int:
    """Bytes of one workspace."""
    return _SIZES[architecture]


def needs_workspace(op: str) -> bool:
    """Whether operator `op`, such as 'aten.mm.default', multiplies matrices through cuBLAS."""
    return op.rpartition(".")[0] in OPERATORS or op in OPERATORS
