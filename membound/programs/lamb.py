"""LAMB (You et al. 2020, algorithm 2), all parameters at a time with multi-tensor operators, as NVIDIA's BERT recipe fuses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

# Multi-tensor operators have no public names but those that the dispatcher knows them by.
_aten = torch.ops.aten


class Lamb(Optimizer):
    """Adam's step for each parameter, as long as `lr` times the parameter itself."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "step": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. `closure` is not supported."""
        assert closure is None
        for group in self.param_groups:
            group["step"] += 1
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(group, parameters)

    def _update(self, group: dict[str, Any], w: list[torch.nn.Parameter]) -> None:
        for p in w:
            if not self.state[p]:
                self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        (b1, b2), t = group["betas"], group["step"]
        m, v = ([self.state[p][name] for p in w] for name in ("exp_avg", "exp_avg_sq"))
        g = [p.grad for p in w]
        _aten._foreach_lerp_.Scalar(m, g, 1 - b1)
        _aten._foreach_mul_.Scalar(v, b2)
        _aten._foreach_addcmul_.Scalar(v, g, g, 1 - b2)
        denominator = _aten._foreach_sqrt(v)
        _aten._foreach_div_.Scalar(denominator, (1 - b2**t) ** 0.5)
        _aten._foreach_add_.Scalar(denominator, group["eps"])
        r = _aten._foreach_div.List(m, denominator)
        _aten._foreach_div_.Scalar(r, 1 - b1**t)
        _aten._foreach_add_.List(r, w, alpha=group["weight_decay"])
        _aten._foreach_mul_.List(r, _trust(w, r))
        _aten._foreach_add_.List(w, r, alpha=-group["lr"])


def _trust(w: list[torch.nn.Parameter], r: list[torch.Tensor]) -> list[torch.Tensor]:
    """The norm of each parameter over that of its step; 1 where either is 0."""
    sizes, steps = (torch.stack(list(_aten._foreach_norm.Scalar(tensors))) for tensors in (w, r))
    return list(torch.where((sizes > 0) & (steps > 0), sizes / steps, 1.0).unbind())
