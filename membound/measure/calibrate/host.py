"""What the host pays: seconds of Python and C++ for each operator that is launched, for autograd, modules, events and waiting."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from membound.measure.calibrate.bench import Bench, Row
from membound.measure.calibrate.run import COLUMNS

CALLS = 400  # stays below the 1,024 launches that a stream queues, so that the device never holds the host up


def rows(bench: Bench) -> Iterator[Row]:
    for title, run, notes in _operators(bench):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                yield _row(title, _seconds(bench, run), f"{notes} {'autograd on' if grad else 'autograd off'}".strip())
    yield from _backward(bench)
    yield from _modules(bench)
    yield from _waiting(bench)


def _row(op: str, seconds: float, notes: str = "") -> Row:
    row: Row = dict.fromkeys(COLUMNS, "")
    row.update(family="host", op=op, seconds_warm=f"{seconds:.4g}", notes=notes)
    return row


def _seconds(bench: Bench, run: Callable[[], Any], calls: int = CALLS) -> float:
    """Host seconds of one call, the median of five rounds: what a job's call typically takes, which on a virtual machine is not its best."""
    taken = []
    calls, rounds = (2, 1) if bench.dry else (calls, 5)
    for _ in range(rounds):
        bench.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        taken.append((time.perf_counter() - start) / calls)
    bench.synchronize()
    return statistics.median(taken)


def _operators(bench: Bench) -> Iterator[tuple[str, Callable[[], Any], str]]:
    x = bench.random(16, 64, grad=True)
    w, bias = bench.random(64, 64, grad=True), bench.random(64, grad=True)
    ids, other = bench.integers(16, 16), bench.integers(16, 16)
    q = bench.random(1, 2, 16, 64, grad=True)
    yield "aten.add.Tensor", lambda: torch.add(x, x), ""
    yield "aten.mul.Tensor", lambda: torch.mul(x, x), ""
    yield "aten.mul.Tensor", lambda: x * 0.5, "by a number"
    yield "aten.silu.default", lambda: F.silu(x), ""
    yield "aten._to_copy.default", lambda: x.to(torch.float32), ""
    yield "aten.mean.dim", lambda: x.mean(-1, keepdim=True), ""
    yield "aten.mm.default", lambda: torch.mm(x, w), ""
    yield "linear", lambda: F.linear(x, w), "view, transpose and mm"
    yield "linear", lambda: F.linear(x, w, bias), "with bias"
    yield "aten.cat.default", lambda: torch.cat((x, x), -1), ""
    yield "aten.embedding.default", lambda: F.embedding(ids, w), ""
    yield "aten._softmax.default", lambda: torch.softmax(x, -1), ""
    yield "aten.native_layer_norm.default", lambda: F.layer_norm(x, (64,), bias, bias), ""
    yield "scaled_dot_product_attention", lambda: F.scaled_dot_product_attention(q, q, q, is_causal=True), ""
    yield "aten.view.default", lambda: x.view(64, 16), "launches nothing"
    yield "aten.transpose.int", lambda: x.transpose(0, 1), "launches nothing"
    yield "aten.empty.memory_format", lambda: torch.empty(16, 64, device=bench.device), "launches nothing"
    yield "aten.copy_.default", lambda: other.copy_(ids), ""
    yield "aten.zero_.default", lambda: ids.zero_(), ""


def _backward(bench: Bench) -> Iterator[Row]:
    """Chains of 100 nodes: what each adds to backward."""
    x = bench.random(16, 64, grad=True)
    w = bench.random(64, 64, grad=True)
    chains: tuple[tuple[str, Callable[[torch.Tensor], torch.Tensor]], ...] = (
        ("backward node mul by a number", lambda y: y * 1.01),
        ("backward node mul", lambda y: y * x),
        ("backward node mm", lambda y: torch.mm(y, w)),
        ("backward node silu", F.silu),
        ("backward node linear", lambda y: F.linear(y, w)),
    )
    for title, step in chains:
        taken = []
        for _ in range(5):
            y = x
            for _ in range(100):
                y = step(y)
            upstream = torch.ones_like(y)
            bench.synchronize()
            start = time.perf_counter()
            torch.autograd.backward(y, upstream)
            taken.append((time.perf_counter() - start) / 100)
            bench.synchronize()
        yield _row(title, statistics.median(taken), "host time of backward() per node")


def _modules(bench: Bench) -> Iterator[Row]:
    class Empty(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x

    empty, hooked = Empty(), Empty()
    hooked.register_forward_hook(lambda *_: None)
    yield _row("nn.Module call", _seconds(bench, lambda: empty(None)))
    yield _row("nn.Module call", _seconds(bench, lambda: hooked(None)), "with a forward hook")
    for count in (10, 100, 400):
        yield from _lists(bench, [bench.random(64, dtype=torch.float32) for _ in range(count)])


def _lists(bench: Bench, tensors: list[torch.Tensor]) -> Iterator[Row]:
    """Multi-tensor calls, whose price grows with the list."""
    notes = f"{len(tensors)} tensors"
    yield _row("aten._foreach_add_.Scalar", _seconds(bench, lambda: torch.ops.aten._foreach_add_.Scalar(tensors, 0.1), 20), notes)
    parameters = [torch.nn.Parameter(t) for t in tensors]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    for how in ("foreach", "fused"):
        optimizer = torch.optim.AdamW(parameters, foreach=how == "foreach", fused=how == "fused")
        yield _row(f"AdamW.step {how}", _seconds(bench, optimizer.step, 10), notes)
    yield _row("zero_grad", _seconds(bench, lambda: _without_gradients(parameters), 20), notes)


def _without_gradients(parameters: list[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def _waiting(bench: Bench) -> Iterator[Row]:
    x = bench.random(16, dtype=torch.float32)
    one = x[0]
    yield _row(".item()", _seconds(bench, lambda: one.item(), 100), "nothing to wait for")
    yield _row("synchronize", _seconds(bench, bench.synchronize, 100), "nothing to wait for")
    if bench.dry:
        return
    event, other = torch.cuda.Event(), torch.cuda.Stream()
    yield _row("event record", _seconds(bench, event.record))
    yield _row("event wait", _seconds(bench, lambda: other.wait_event(event)))
    pinned = torch.zeros(1 << 12, dtype=torch.uint8, pin_memory=True)
    target = torch.zeros(1 << 12, dtype=torch.uint8, device=bench.device)
    yield _row("copy_h2d", _seconds(bench, lambda: target.copy_(pinned, non_blocking=True)), "pinned, 4 KiB, not waited for")
    yield _row("copy_h2d", _seconds(bench, lambda: target.copy_(pinned), 50), "pinned, 4 KiB, waited for")
    yield _row("cudaMalloc and free of 32 MiB", _seconds(bench, _allocate, 5), "the caching allocator emptied each time")


def _allocate() -> None:
    tensor = torch.empty(1 << 25, dtype=torch.uint8, device="cuda")
    del tensor
    torch.cuda.empty_cache()
