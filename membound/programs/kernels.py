"""The kernels of a recipe: eager PyTorch's, Liger-Kernel's in place of a model's own, or those that torch.compile generates."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from membound.errors import InputError, MissingPackageError
from membound.spec.job import Recipe


def choose(model: nn.Module, recipe: Recipe) -> None:
    """Give `model`, with its adapters if any, the kernels of `recipe`."""
    if recipe.kernels == "liger":
        base = cast(Any, model).get_base_model() if recipe.trains_adapters else model
        apply_liger(base)
    if recipe.kernels == "compile":
        for layer in decoder_layers(model):
            compile_layer(layer)


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that Transformers recomputes as one, which are those that torchtune compiles one by one."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def compile_layer(layer: nn.Module) -> None:
    """torch.compile, in place."""
    layer.compile()


def apply_liger(model: nn.Module) -> None:
    """Patch a Transformers model in place, as the Hugging Face Trainer does with `use_liger_kernel`."""
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError:
        raise MissingPackageError("liger-kernel", "recipe.kernels liger", "liger") from None
    kind = cast(Any, model).config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:  # which Liger itself passes over in silence
        raise InputError("recipe.kernels", "liger", f"Liger-Kernel has no kernels for model type {kind}: write eager")
    _apply_liger_kernel_to_instance(model=model)
