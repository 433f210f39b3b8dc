"""Look-ups and scatters: rows of a table by index, of which only those touched count."""

from __future__ import annotations

from typing import Final, final

import numpy as np
import numpy.typing as npt

from membound.cost.law import Array, Kernels, Shape, most
from membound.cost.streaming import Streaming

# Operators that read no more of their first operand than they write.
GATHERS: Final = frozenset(
    {"aten.embedding", "aten.index", "aten.index_select", "aten.gather", "aten.take", "aten._embedding_bag", "aten.take_along_dim"}
)

_OTHERS: Final = """
    embedding_dense_backward index_put index_put_ _unsafe_index _unsafe_index_put scatter scatter_ scatter_add scatter_add_ index_add index_add_ sort
    topk nonzero unique_dim _unique2 bincount histc searchsorted bucketize one_hot _embedding_bag_dense_backward _embedding_bag_backward
    _index_put_impl_ index_copy index_copy_ argsort masked_scatter scatter_reduce select_scatter msort kthvalue nonzero_static gather_backward
""".split()


@final
class Embedding(Streaming):
    """Embedding, gather, scatter, sort and their like."""

    family = "embedding"
    operators = GATHERS | frozenset(f"aten.{name}" for name in _OTHERS)

    def elements(self, kernels: Kernels) -> Array:
        return np.array([_elements(*each) for each in zip(kernels.op, kernels.reads, kernels.writes, strict=True)], np.float64)

    def sharpness(self, kernels: Kernels) -> Array:
        # Backward fills the whole table with zeros, then sorts and scatters: one time follows the other.
        return np.where(_backward(kernels), 1.0, super().sharpness(kernels))

    def through_l2(self, kernels: Kernels) -> Array:
        return np.where(_backward(kernels), 0.0, kernels.touched)

    def rates(self, kernels: Kernels) -> list[str]:
        return [_rate(op) for op in kernels.op]


def _elements(op: str, reads: tuple[Shape, ...], writes: tuple[Shape, ...]) -> float:
    """What one thread after the other, or one block, goes through."""
    rate = _rate(op)
    if rate == "look_up":
        # A block a row, whatever the row's width.
        return most(tuple(shape for shape in reads if shape[0] in _INDICES))
    if rate == "bag":
        return most(writes)
    # A scatter goes through what it adds, not through what it adds to, which stands first where it is changed in place.
    return most(reads if "dense_backward" in op or len(reads) < 2 else reads[1:])


def _backward(kernels: Kernels) -> npt.NDArray[np.bool_]:
    return np.array(["dense_backward" in op for op in kernels.op], np.bool_)


_SORTS: Final = frozenset({"aten.sort", "aten._unique2", "aten.unique_dim", "aten.argsort", "aten.msort"})
_SELECTIONS: Final = frozenset({"aten.topk", "aten.kthvalue"})
# Operators that move whole rows, several rows at a time.
_PUTS: Final = frozenset(
    {"aten.index_put", "aten.index_put_", "aten._index_put_impl_", "aten._unsafe_index_put", "aten.index_copy", "aten.index_copy_"}
)
_ADDS: Final = frozenset({"aten.index_add", "aten.index_add_"})
_TABLES: Final = frozenset({"aten.embedding_dense_backward", "aten._embedding_bag_dense_backward"})
_INDICES: Final = frozenset({"int64", "int32"})
_LOOK_UPS: Final = frozenset({"aten.embedding", "aten.index_select"})
_BAGS: Final = frozenset({"aten._embedding_bag"})
_NAMED: Final = {
    "look_up": _LOOK_UPS,
    "bag": _BAGS,
    "embedding_backward": _TABLES,
    "sort": _SORTS,
    "topk": _SELECTIONS,
    "index_put": _PUTS,
    "index_add": _ADDS,
    "gather": GATHERS,
}


def _rate(op: str) -> str:
    name = op.rpartition(".")[0] or op
    return next((rate for rate, names in _NAMED.items() if name in names), "scatter")
