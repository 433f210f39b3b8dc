"""Liger-Kernel on the ghost: its modelled operators in the places of a model where the package puts its kernels.

After Liger-Kernel 0.8.5, src/liger_kernel/transformers/monkey_patch.py, which is what `kernels: liger` calls on real hardware.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import MethodType
from typing import Any, Final

import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from membound.errors import InputError
from membound.ghost import liger_loss, liger_operators

NOTE: Final = "Liger's kernels are modelled after its version 0.8.5: the package cannot run without a GPU"


@dataclass(frozen=True)
class _Family:
    """Which kernels a model type gets."""

    activation: str = "swiglu"
    in_place_norms: bool = True
    """The gradient of a norm's input overwrites that of its output; not where a residual needs it still."""


# The types of MODEL_TYPE_TO_APPLY_LIGER_FN whose modules are modelled, as apply_liger_kernel_to_* patches them.
_FAMILIES: Final[dict[str, _Family]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _Family()),
    "gemma": _Family("geglu"),
    "gemma2": _Family("geglu", in_place_norms=False),
}


def install() -> None:
    """Let Programs that ask for Liger's kernels have these."""
    from membound.programs import kernels

    liger_operators.register()
    kernels.apply_liger = apply


def apply(model: nn.Module) -> None:
    """Patch `model`, as _apply_liger_kernel_to_instance does. Raises `InputError` for a model type without modelled kernels."""
    kind = model.config.model_type  # type: ignore[union-attr]
    family = _FAMILIES.get(kind)  # type: ignore[arg-type]
    if family is None:
        raise InputError("recipe.kernels", "liger", f"Liger's kernels for model type {kind} are not modelled; known: {', '.join(_FAMILIES)}")
    vars(sys.modules[type(model).__module__])["apply_rotary_pos_emb"] = liger_operators.rotate
    for module in model.modules():
        name = type(module).__name__
        if name.endswith("RMSNorm"):
            module.forward = MethodType(_norm(family.in_place_norms), module)
        elif name.endswith("MLP"):
            module.forward = MethodType(_mlp(family.activation), module)
    model.forward = MethodType(_causal_forward, model)


def _norm(in_place: bool) -> Any:
    def forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        return liger_operators.rms_norm(hidden_states, self.weight, in_place)

    return forward


def _mlp(kind: str) -> Any:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(liger_operators.gated(self.gate_proj(x), self.up_proj(x), kind))
        return out

    return forward


def _causal_forward(self: Any, input_ids: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> CausalLMOutputWithPast:
    """lce_forward in training: no logits."""
    hidden = self.model(input_ids=input_ids, **kwargs).last_hidden_state
    return CausalLMOutputWithPast(loss=liger_loss.causal_loss(hidden, self.lm_head.weight, labels))
