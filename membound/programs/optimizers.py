"""The optimizers of a recipe, as the Hugging Face Trainer would make them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch.optim import Optimizer

from membound.errors import MissingPackageError
from membound.programs.lamb import Lamb
from membound.spec.job import Recipe

# NVIDIA/DeepLearningExamples PyTorch/Detection/SSD and Segmentation/MaskRCNN; ResNet-50's recipe has 0.875.
_MOMENTUM = 0.9


def make(parameters: Iterable[torch.nn.Parameter], recipe: Recipe) -> Optimizer:
    """The optimizer of `recipe` over those `parameters` that train."""
    trained = [p for p in parameters if p.requires_grad]
    return _MAKERS[recipe.optimizer](trained, recipe.learning_rate)


def _adamw(parameters: list[torch.nn.Parameter], rate: float) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)


def _adamw_fused(parameters: list[torch.nn.Parameter], rate: float) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)


def _sgd(parameters: list[torch.nn.Parameter], rate: float) -> Optimizer:
    return torch.optim.SGD(parameters, lr=rate)


def _sgd_momentum(parameters: list[torch.nn.Parameter], rate: float) -> Optimizer:
    return torch.optim.SGD(parameters, lr=rate, momentum=_MOMENTUM)


def _lamb(parameters: list[torch.nn.Parameter], rate: float) -> Optimizer:
    return Lamb(parameters, lr=rate)


def _adafactor(parameters: list[torch.nn.Parameter], rate: float) -> Optimizer:
    from transformers.optimization import Adafactor

    return cast(Optimizer, Adafactor(parameters, lr=rate, scale_parameter=False, relative_step=False))


def _adamw_8bit(parameters: list[torch.nn.Parameter], rate: float) -> Optimizer:
    return cast(Optimizer, _bnb_optim().AdamW8bit(parameters, lr=rate, weight_decay=0.0))


def _paged_adamw_8bit(parameters: list[torch.nn.Parameter], rate: float) -> Optimizer:
    return cast(Optimizer, _bnb_optim().PagedAdamW8bit(parameters, lr=rate, weight_decay=0.0))


def _bnb_optim() -> Any:
    try:
        from bitsandbytes import optim
    except ImportError:
        raise MissingPackageError("bitsandbytes", "an 8-bit optimizer", "qlora") from None
    return optim


_MAKERS = {
    "adamw": _adamw,
    "adamw-fused": _adamw_fused,
    "adamw-8bit": _adamw_8bit,
    "paged-adamw-8bit": _paged_adamw_8bit,
    "adafactor": _adafactor,
    "lamb": _lamb,
    "sgd": _sgd,
    "sgd-momentum": _sgd_momentum,
}


def warm_up_cosine(optimizer: Optimizer, steps: int, warm_up: float = 0.03) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over the first 3 % of `steps`, then a cosine to zero: the Stanford recipe's schedule, as Transformers defines it."""
    first = int(steps * warm_up)

    def factor(step: int) -> float:
        if step < first:
            return step / max(1, first)
        return 0.5 * (1.0 + math.cos(math.pi * (step - first) / max(1, steps - first)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
