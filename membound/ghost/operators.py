"""What each operator is: its name, what it writes, how many FLOPs it takes. Learned once per operator from its schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from membound.ghost.private.operators import FLOP_FORMULAS

_EMPTY = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "lift_fresh",
    "lift",
    "alias",
    "detach",
    "set_",
    "_resize_output_",
}
_COPIES = {"copy_", "_to_copy", "_copy_from", "_copy_from_and_resize"}
_COLLECTIVES = {"c10d", "_c10d_functional", "c10d_functional"}
_NO_COLLECTIVES = {"wait_tensor", "barrier"}
# Arguments that change when an operation runs, or how much of it, and that no operand shows.
_FLAGS = {"is_causal", "causal", "non_blocking", "asyncOp", "async_op"}
# c10d's schemas do not say so, but those in place write their first argument (torch/csrc/distributed/c10d/Ops.cpp).
_IN_PLACE = "c10d"
# Look-ups in tables and additions to them: positions of the indices, and of the dimension where there is one.
_ROWS: dict[str, tuple[int, int | None]] = {"embedding": (1, None), "_embedding_bag": (1, None), "index_select": (2, 1), "index_add_": (2, 1)}
# fsdp::all_gather_copy_in copies this rank's shard into its place in the gathered buffer, and returns that place first.
_FILLS_RESULT = {"all_gather_copy_in": (0,)}


def _attention_forward(query: Any, key: Any, *args: Any, **kwargs: Any) -> int:
    """Two matmuls over all pairs of positions, [B, H, Tq, D] by [B, H, Tk, D]; PyTorch's own formula refuses grouped queries before 2.13."""
    batch, heads, rows, width = query.shape
    return int(2 * 2 * batch * heads * rows * key.shape[2] * width)


def _attention_backward(grad: Any, query: Any, key: Any, *args: Any, **kwargs: Any) -> int:
    """Five matmuls: scores again, and the gradients of values, scores, queries and keys."""
    return _attention_forward(query, key) * 5 // 2


def _flash_attn_forward(query: Any, key: Any, *args: Any, **kwargs: Any) -> int:
    """flash_attn's layout, [B, T, H, D]."""
    batch, rows, heads, width = query.shape
    return int(2 * 2 * batch * heads * rows * key.shape[1] * width)


def _flash_attn_varlen_forward(query: Any, key: Any, value: Any, cu_seqlens: Any, _: Any, longest: int, *args: Any, **kwargs: Any) -> int:
    """Rows end to end, [all tokens, H, D]: the longest row, and the other tokens in rows of equal length."""
    tokens, heads, width = query.shape
    others = cu_seqlens.shape[0] - 2
    pairs = longest**2 + ((tokens - longest) ** 2 // others if others > 0 else 0)
    return int(2 * 2 * heads * pairs * width)


def _flash_attn_backward(dout: Any, query: Any, key: Any, *args: Any, **kwargs: Any) -> int:
    return _flash_attn_forward(query, key) * 5 // 2


def _flash_attn_varlen_backward(dout: Any, *args: Any, **kwargs: Any) -> int:
    query, key, value, _, _, _, _, _, cu_seqlens, cu_seqlens_k, longest = args[:11]
    return _flash_attn_varlen_forward(query, key, value, cu_seqlens, cu_seqlens_k, longest) * 5 // 2


_ATTENTION_FLOPS: dict[str, Callable[..., int]] = {
    "_flash_attn_forward": _flash_attn_forward,
    "_flash_attn_varlen_forward": _flash_attn_varlen_forward,
    "_flash_attn_backward": _flash_attn_backward,
    "_flash_attn_varlen_backward": _flash_attn_varlen_backward,
    **dict.fromkeys([f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn")], _attention_forward),
    **dict.fromkeys([f"_scaled_dot_product_{kind}_attention_backward" for kind in ("flash", "efficient", "cudnn")], _attention_backward),
}


def _product(left: Any, right: Any, *args: Any, **kwargs: Any) -> int:
    """[.., M, K] by [.., K, N], over all groups of a grouped product together."""
    return int(2 * left.shape[-2] * left.shape[-1] * right.shape[-1])


def _added_product(total: Any, left: Any, right: Any, **kwargs: Any) -> int:
    return _product(left, right)


def _quantised_product(rows: Any, packed: Any, shape: Any, *args: Any, **kwargs: Any) -> int:
    """[.., M, K] by a packed weight of [N, K]."""
    return int(2 * rows.numel() * shape[0])


_FLOPS: dict[str, Callable[..., int]] = {"gemm_4bit": _quantised_product, **_ATTENTION_FLOPS, "_grouped_mm": _product, "addmm_": _added_product}


@dataclass(frozen=True)
class Operator:
    """One overload of one operator."""

    name: str
    """As PyTorch prints it: aten.mm.default."""
    writes: tuple[int, ...]
    """Positions of the arguments that it writes in place."""
    writes_by_name: tuple[str, ...]
    """Names of the keyword arguments that it writes (out=)."""
    fills: tuple[int, ...]
    """Positions of the results that are old memory, newly written."""
    silent: bool
    """Launches nothing: allocates, or renames, at most."""
    copy: bool
    collective: bool
    flops: Callable[..., int] | None
    flag: tuple[int, str, bool] | None = None
    """Position, name and default of the argument that the Trace keeps as `flag`: causal attention, a copy or a collective without waiting."""

    rows: tuple[int, int | None] | None = None
    """Positions of the indices of those rows of the first argument that alone are touched, and of the dimension that they count (None: 0)."""

    def touches(self, args: tuple[Any, ...]) -> int | None:
        """Bytes of the first argument that a call touches at the most; None for all."""
        if self.rows is None or len(args) <= self.rows[0]:
            return None
        table, indices = args[0], args[self.rows[0]]
        along = 0 if self.rows[1] is None else args[self.rows[1]]
        return int(indices.numel() * table.numel() // max(table.shape[along], 1) * table.element_size())

    dropout: tuple[int, str] | None = None
    """Position and name of attention's share of scores that are dropped."""

    def flagged(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """The Trace's `flag` of a call: 1, and 2 more where attention drops scores; 0 for neither."""
        if self.flag is None:
            return 0
        position, name, default = self.flag
        found = int(bool(args[position] if position < len(args) else kwargs.get(name, default)))
        if self.dropout is not None:
            position, name = self.dropout
            found += 2 * bool(args[position] if position < len(args) else kwargs.get(name, 0.0))
        return found

    @property
    def mutates(self) -> bool:
        """Whether it writes any argument."""
        return bool(self.writes or self.writes_by_name)


def learn(func: Any) -> Operator:
    """The facts of an `OpOverload`."""
    arguments = func._schema.arguments
    written = [i for i, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write]
    base = func._schema.name.split("::")[1]
    space = func.namespace
    if space == _IN_PLACE and base.endswith("_") and not written:
        written = [0]
    return Operator(
        name=str(func),
        writes=tuple(i for i in written if not arguments[i].kwarg_only),
        writes_by_name=tuple(arguments[i].name for i in written),
        fills=_FILLS_RESULT.get(base, ()),
        silent=base in _EMPTY,
        copy=base in _COPIES,
        collective=space in _COLLECTIVES and base not in _NO_COLLECTIVES,
        flops=_FLOPS.get(base) or FLOP_FORMULAS.get(func._overloadpacket),
        rows=_ROWS.get(base),
        flag=next(((i, a.name, bool(a.default_value)) for i, a in enumerate(arguments) if a.name in _FLAGS), None),
        dropout=next(((i, a.name) for i, a in enumerate(arguments) if a.name == "dropout_p"), None),
    )
