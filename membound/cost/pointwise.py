"""Pointwise operations: each element read, changed and written once."""

from __future__ import annotations

from typing import Final, final

from membound.cost.law import Kernels
from membound.cost.streaming import Streaming, evenly, types

_NAMES: Final = """
    abs add add_ addcdiv addcdiv_ addcmul addcmul_ bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clamp_ clamp_min clamp_max cos div
    div_ eq erf exp exp_ floor fmod ge gelu gelu_backward gt hardtanh isinf isnan isfinite le leaky_relu lerp lerp_ log log1p logical_and
    logical_not logical_or lt masked_fill masked_fill_ maximum minimum mul mul_ ne neg neg_ pow pow_ reciprocal rand relu relu_ remainder rsqrt
    rsqrt_ rsub sigmoid sigmoid_backward sigmoid_ sign silu silu_backward sin softplus softplus_backward sqrt sqrt_ sub sub_ tanh tanh_
    tanh_backward threshold_backward where tril triu square hardswish bernoulli bernoulli_ native_dropout native_dropout_backward uniform_
    normal_ floor_divide sgn round trunc erfinv expm1 __and__ __or__ _softcap native_batch_norm_elemt elu glu xlogy mish mish_backward random_
    log2 logit atan2 hypot max_other min_other bitwise_and_ bitwise_or_ logical_and_ isposinf isneginf nan_to_num deg2rad
    binary_cross_entropy_with_logits smooth_l1_loss smooth_l1_loss_backward mse_loss mse_loss_backward
""".split()


# Kernels that Triton generated: what Inductor fused, sums over rows within it included, and Liger's. Each operand goes through once, in wide steps
# whatever its type; that they stream as PyTorch's own even kernels do is assumed, not measured.
_FUSED: Final = frozenset(
    {"inductor.fused"}
    | {f"liger_kernel.{name}" for name in ("swiglu_forward", "swiglu_backward", "geglu_forward", "geglu_backward", "rope", "element_mul")}
)


@final
class Pointwise(Streaming):
    """Arithmetic on single elements, dropout, masks and fused kernels included."""

    family = "pointwise"
    operators = frozenset(f"aten.{name}" for name in _NAMES) | {"aten.max.other", "aten.min.other"} | _FUSED

    def rates(self, kernels: Kernels) -> list[str]:
        return [_rate(op, even, kinds) for op, even, kinds in zip(kernels.op, evenly(kernels), types(kernels), strict=True)]


def _rate(op: str, even: bool, kinds: frozenset[str]) -> str:
    if "dropout" in op:
        return "dropout"
    if even or op.startswith(("inductor.", "liger_kernel.")):
        return "pointwise"
    return "mixed" if len(kinds) > 1 else "strided"
