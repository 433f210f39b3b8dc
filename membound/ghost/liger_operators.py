"""Liger-Kernel's Triton kernels as operators without a kernel, and the autograd around them: what is kept, and what is written in place.

After Liger-Kernel 0.8.5, src/liger_kernel/ops/{rms_norm,swiglu,geglu,rope,cross_entropy,utils}.py. What the package does with PyTorch's own
operators is done with them here too.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from membound.ghost.private.operators import Modelled, define_operators

# Rows of the partial sums of a norm weight's gradient: the GPU's multiprocessors (rms_norm_backward). H100 and H200 SXM have 132 (NVIDIA H100
# whitepaper, table 1); another count changes a buffer of 2 MB for 4096 features.
_PROCESSORS: Final = 132


def register() -> None:
    """Make the operators known."""
    define_operators("liger_kernel", _OPERATORS)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, in_place: bool) -> torch.Tensor:
    """LigerRMSNormFunction. `in_place`: the gradient of x overwrites that of the output."""
    out: torch.Tensor = _RMSNorm.apply(x, weight, in_place)  # type: ignore[no-untyped-call]
    return out


def gated(gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
    """LigerSiLUMulFunction (`swiglu`) or LigerGELUMulFunction (`geglu`)."""
    out: torch.Tensor = _Gated.apply(gate, up, kind)  # type: ignore[no-untyped-call]
    return out


def rotate(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, position_ids: Any = None, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """liger_rotary_pos_emb, in place of Transformers' apply_rotary_pos_emb: q and k, [B, H, T, D], are rotated where they are."""
    rotated: tuple[torch.Tensor, torch.Tensor] = _Rope.apply(q, k, cos, sin)  # type: ignore[no-untyped-call]
    return rotated


class _RMSNorm(torch.autograd.Function):
    """Keeps the input, the weight and one fp32 number per row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, in_place: bool) -> torch.Tensor:
        rows = x.contiguous().view(-1, x.shape[-1])
        out, scale = torch.ops.liger_kernel.rms_norm_forward(rows, weight)
        ctx.save_for_backward(rows, weight, scale)
        ctx.in_place = in_place
        normed: torch.Tensor = out.view(x.shape)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        rows, weight, scale = ctx.saved_tensors
        given = gradient.contiguous().view(rows.shape)
        made = given if ctx.in_place else torch.zeros_like(given)
        partial = torch.ops.liger_kernel.rms_norm_backward(given, rows, weight, scale, made, _PROCESSORS if ctx.needs_input_grad[1] else 0)
        of_weight = partial.sum(dim=0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        return made.view(gradient.shape), of_weight, None


class _Gated(torch.autograd.Function):
    """Keeps both inputs; backward recomputes the activation and writes their gradients over them."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        ctx.kind = kind
        out: torch.Tensor = getattr(torch.ops.liger_kernel, f"{kind}_forward")(gate, up)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        gate, up = (kept.detach() for kept in ctx.saved_tensors)
        getattr(torch.ops.liger_kernel, f"{ctx.kind}_backward")(gradient.contiguous(), gate, up)
        return gate, up, None


class _Rope(torch.autograd.Function):
    """Keeps the tables alone; forward and backward work in place."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(cos, sin)
        return _rotated(q, k, cos, sin)

    @staticmethod
    def backward(ctx: Any, of_q: torch.Tensor, of_k: torch.Tensor) -> tuple[Any, ...]:
        return (*_rotated(of_q, of_k, *ctx.saved_tensors), None, None)


def _rotated(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # The kernel wants [B, T, H, D] in memory, which q and k are a transposed view of, most often.
    q, k = q.transpose(1, 2).contiguous(), k.transpose(1, 2).contiguous()
    torch.ops.liger_kernel.rope(q, k, cos, sin)
    return q.transpose(1, 2), k.transpose(1, 2)


def _norm_forward(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), x.new_empty((x.shape[0],), dtype=torch.float32)


def _norm_backward(dy: torch.Tensor, x: Any, weight: Any, scale: Any, dx: Any, processors: int) -> torch.Tensor:
    return dy.new_empty((processors, dy.shape[-1]) if processors else (0,), dtype=torch.float32)


def _like_first(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(a)


def _in_place(*args: Any) -> None:
    return None


_OPERATORS: Final[dict[str, Modelled]] = {
    "rms_norm_forward(Tensor X, Tensor W) -> (Tensor, Tensor)": _norm_forward,
    "rms_norm_backward(Tensor dY, Tensor X, Tensor W, Tensor RSTD, Tensor(a!) dX, int sm_count) -> Tensor": _norm_backward,
    "swiglu_forward(Tensor a, Tensor b) -> Tensor": _like_first,
    "swiglu_backward(Tensor dc, Tensor(a!) a, Tensor(b!) b) -> ()": _in_place,
    "geglu_forward(Tensor a, Tensor b) -> Tensor": _like_first,
    "geglu_backward(Tensor dc, Tensor(a!) a, Tensor(b!) b) -> ()": _in_place,
    "rope(Tensor(a!) q, Tensor(b!) k, Tensor cos, Tensor sin) -> ()": _in_place,
    # Logits are overwritten by their gradient.
    "cross_entropy(Tensor(a!) logits, Tensor target, Tensor(b!) loss) -> ()": _in_place,
    # PyTorch's own addmm with out_dtype=float32 into its argument, which does not run fake.
    "addmm_(Tensor(a!) total, Tensor mat1, Tensor mat2) -> ()": _in_place,
    "element_mul(Tensor(a!) X, Tensor grad_output) -> ()": _in_place,
}
