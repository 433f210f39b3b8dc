"""Kernels that Liger and Inductor fuse, beside the bytes that they move: what a Triton kernel streams at."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from membound.measure.calibrate.bench import Bench, Case, Thunk

BF16 = torch.bfloat16
# Tokens, width: of 1B and 7B.
SIZES = ((4096, 2048), (2048, 4096), (8192, 4096), (512, 4096))
_VOCABULARY = 32000


def cases(bench: Bench) -> Iterator[Case]:
    for tokens, width in SIZES:
        tokens, width = bench.size(tokens), bench.size(width)
        for backward in (False, True):
            if not bench.dry:
                yield from _liger(bench, tokens, width, backward)
            yield from _compiled(bench, tokens, width, backward)


def _liger(bench: Bench, tokens: int, width: int, backward: bool) -> Iterator[Case]:
    def norm() -> Thunk:
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction

        x, w = bench.random(tokens, width, grad=backward), bench.random(width, grad=backward)
        return _either(lambda: LigerRMSNormFunction.apply(x, w, 1e-6, 0.0, "llama", False), (x, w), backward)

    def gate() -> Thunk:
        from liger_kernel.ops.swiglu import LigerSiLUMulFunction

        a, b = bench.random(tokens, 2 * width, grad=backward), bench.random(tokens, 2 * width, grad=backward)
        return _either(lambda: LigerSiLUMulFunction.apply(a, b), (a, b), backward)

    def rope() -> Thunk:
        from liger_kernel.ops.rope import LigerRopeFunction

        q, k = (bench.random(1, tokens, width // 128, 128, grad=backward).transpose(1, 2) for _ in range(2))
        cos, sin = bench.random(1, tokens, 128), bench.random(1, tokens, 128)
        return _either(lambda: LigerRopeFunction.apply(q, k, cos, sin)[0], (q, k), backward)

    def loss() -> Thunk:
        from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction

        logits, target = bench.random(tokens, _VOCABULARY), bench.integers(_VOCABULARY, tokens)
        return lambda: LigerCrossEntropyFunction.apply(logits.detach().requires_grad_(), target, None, -100, 0.0, 0.0, "mean", None, False)

    one = 2.0 * tokens * width
    ways = "_backward" if backward else ""
    yield Case("fused", f"liger.rms_norm{ways}", f"{tokens},{width}", "bfloat16", 0.0, (3 if backward else 2) * one, norm)
    yield Case("fused", f"liger.silu_mul{ways}", f"{tokens},{2 * width}", "bfloat16", 0.0, (5 if backward else 3) * 2 * one, gate)
    yield Case("fused", f"liger.rope{ways}", f"{tokens},{width}", "bfloat16", 0.0, 4 * one, rope)
    if not backward:
        yield Case("fused", "liger.cross_entropy", f"{tokens},{_VOCABULARY}", "bfloat16", 0.0, 3 * 2.0 * tokens * _VOCABULARY, loss)


def _compiled(bench: Bench, tokens: int, width: int, backward: bool) -> Iterator[Case]:
    def norm(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        added = (x + y).float()
        return (added * torch.rsqrt(added.pow(2).mean(-1, keepdim=True) + 1e-6)).to(BF16) * w

    def gate(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.silu(x) * y

    def make(run: object) -> Thunk:
        x, y = bench.random(tokens, width, grad=backward), bench.random(tokens, width, grad=backward)
        w = bench.random(width, grad=backward)
        fused = run if bench.dry else torch.compile(run, dynamic=False)  # type: ignore[call-overload]
        wanted = (x, y, w) if run is norm else (x, y)
        return _either(lambda: fused(x, y, w), wanted, backward)

    one = 2.0 * tokens * width
    for title, run, forth, back in (("norm", norm, 3, 4), ("gate", gate, 3, 5)):
        nbytes = (back if backward else forth) * one
        op = f"inductor.{title}{'_backward' if backward else ''}"
        yield Case("fused", op, f"{tokens},{width}", "bfloat16", 0.0, nbytes, lambda run=run: make(run))


def _either(run: Thunk, wanted: tuple[torch.Tensor, ...], backward: bool) -> Thunk:
    """The forward, or the gradient of it alone."""
    if not backward:
        return run
    out = run()
    upstream = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, wanted, upstream.clone(), retain_graph=True, allow_unused=True)
