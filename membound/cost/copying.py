"""Copies and casts within the GPU's memory, and what fills memory with one value."""

from __future__ import annotations

from typing import Final, final

from membound.cost.dtypes import element_size
from membound.cost.law import Kernels, Shape
from membound.cost.streaming import Streaming, evenly

_NAMES: Final = """
    _to_copy copy copy_ clone contiguous cat stack slice_backward select_backward constant_pad_nd zeros zeros_like ones ones_like full full_like
    fill fill_ zero_ new_zeros new_ones new_full arange scalar_tensor repeat flip roll slice_scatter select_scatter split_with_sizes_copy
    as_strided_scatter unfold_backward expand_copy view_copy permute_copy repeat_interleave linspace eye tril_indices
    _foreach_copy_ _foreach_copy _foreach_zero_ _chunk_cat pad reflection_pad2d upsample_nearest2d upsample_nearest2d_backward
    resize_ narrow_copy unfold im2col col2im pixel_shuffle chunk_cat index_fill masked_select as_strided_
""".split()


@final
class Copying(Streaming):
    """Bytes moved or set as they are, cast to another type at most."""

    family = "copy"
    operators = (
        frozenset(f"aten.{name}" for name in _NAMES)
        | {"bitsandbytes.fill", "fsdp.all_gather_copy_in", "fsdp.split_with_sizes_copy", "fsdp.chunk_cat"}
    )  # fmt: skip

    def rates(self, kernels: Kernels) -> list[str]:
        return [_rate(*each) for each in zip(kernels.op, evenly(kernels), kernels.reads, kernels.writes, strict=True)]


# What a copy of another order of dimensions costs depends on the order: heads before tokens keep the last dimension in place.
_WIDE: Final = ("aten.cat", "aten.stack", "aten.split_with_sizes", "aten.arange", "aten._foreach_copy", "fsdp.")


def _rate(op: str, even: bool, reads: tuple[Shape, ...], writes: tuple[Shape, ...]) -> str:
    if not reads:
        return "fill"
    if op.startswith(_WIDE):
        return "copy"
    narrow = min((element_size(dtype) for dtype, _ in reads), default=1)
    wide = max((element_size(dtype) for dtype, _ in writes), default=1)
    if op.startswith(("aten._to_copy", "aten.copy")) and narrow != wide:
        # Threads write each cast element by itself where it grows; where it shrinks they keep pace with HBM.
        return "widening" if narrow < wide else "copy"
    return "copy" if even else "strided"
