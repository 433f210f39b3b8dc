"""Operations that read and write each element once, casts and rearranging copies, from sizes that the L2 holds to half a gigabyte."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from membound.measure.calibrate.bench import Bench, Case, Thunk

BF16, FP32 = torch.bfloat16, torch.float32
SIZES = (1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28)

# Name, element types of the inputs, bytes an element in all, what is run.
Operation = tuple[str, tuple[torch.dtype, ...], float, Callable[..., torch.Tensor]]
OPERATIONS: tuple[Operation, ...] = (
    ("aten.add.Tensor", (BF16, BF16), 6, torch.add),
    ("aten.add.Tensor", (FP32, FP32), 12, torch.add),
    ("aten.add_.Tensor", (FP32, FP32), 12, lambda a, b: a.add_(b)),
    ("aten.add_.Tensor", (FP32, BF16), 10, lambda a, b: a.add_(b)),
    ("aten.mul.Tensor", (BF16, BF16), 6, torch.mul),
    ("aten.mul.Tensor", (FP32, FP32), 12, torch.mul),
    ("aten.mul.Scalar", (FP32,), 8, lambda a: a * 0.5),
    ("aten.div.Tensor", (FP32, FP32), 12, torch.div),
    ("aten.neg.default", (BF16,), 4, torch.neg),
    ("aten.pow.Tensor_Scalar", (FP32,), 8, lambda a: a.pow(2)),
    ("aten.silu.default", (BF16,), 4, F.silu),
    ("aten.silu_backward.default", (BF16, BF16), 6, torch.ops.aten.silu_backward),
    ("aten.gelu.default", (BF16,), 4, F.gelu),
    ("aten.gelu_backward.default", (BF16, BF16), 6, torch.ops.aten.gelu_backward),
    ("aten._to_copy.default", (BF16,), 6, lambda a: a.to(FP32)),
    ("aten._to_copy.default", (FP32,), 6, lambda a: a.to(BF16)),
    ("aten.clone.default", (BF16,), 4, torch.clone),
    ("aten.native_dropout.default", (BF16,), 5, lambda a: torch.native_dropout(a, 0.1, True)[0]),
    ("aten.gt.Scalar+aten.where.self", (BF16, BF16), 10, lambda a, b: torch.where(a > 0, a, b)),
    ("isfinite (several kernels)", (FP32,), 5, torch.isfinite),
    ("aten.zero_.default", (FP32,), 4, lambda a: a.zero_()),
)


def cases(bench: Bench) -> Iterator[Case]:
    for count in SIZES:
        for operation in OPERATIONS:
            yield _case(bench, bench.size(count), operation)
        yield from _rearranging(bench, count)


def _case(bench: Bench, count: int, operation: Operation) -> Case:
    op, dtypes, per_element, run = operation

    def make() -> Thunk:
        inputs = [bench.random(count, dtype=dtype) for dtype in dtypes]
        return lambda: run(*inputs)

    return Case("pointwise", op, str(count), "+".join(str(d).removeprefix("torch.") for d in dtypes), float(count), count * per_element, make)


def _rearranging(bench: Bench, count: int) -> Iterator[Case]:
    """Rows of 4,096: broadcast product, halves joined (rotary embedding), heads moved before tokens."""
    rows, columns = bench.size(count // 4096), bench.size(4096)

    def broadcast() -> Thunk:
        x, w = bench.random(rows, columns), bench.random(columns)
        return lambda: x * w

    def join() -> Thunk:
        a, b = bench.random(rows, columns // 2), bench.random(rows, columns // 2)
        return lambda: torch.cat((a, b), dim=-1)

    def heads() -> Thunk:
        x = bench.random(rows, columns // min(columns, 128), min(columns, 128))
        return lambda: x.transpose(0, 1).contiguous()

    def columns_first() -> Thunk:
        x = bench.random(rows, columns)
        return lambda: x.t().contiguous()

    shape, elements = f"{rows},{columns}", rows * columns
    yield Case("pointwise", "aten.mul.Tensor", shape, "bfloat16", elements, 4.0 * elements + 2 * columns, broadcast, "row broadcast")
    yield Case("pointwise", "aten.cat.default", shape, "bfloat16", 0, 4.0 * elements, join, "last dimension, two halves")
    yield Case("pointwise", "aten.clone.default", shape, "bfloat16", 0, 4.0 * elements, heads, "heads before tokens")
    yield Case("pointwise", "aten.clone.default", shape, "bfloat16", 0, 4.0 * elements, columns_first, "transposed")
