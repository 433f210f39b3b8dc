"""Models of Transformers from their configurations, with random weights, as Hugging Face loads a checkpoint; and their recomputation."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import nn

from membound.errors import InputError
from membound.programs.world import World
from membound.spec.job import Job, Recipe

# None is Transformers' own choice: sdpa, or eager for a model that cannot use it (BLOOM, GPT-J, Gemma 2, ...).
_ATTENTION = {"sdpa": None, "eager": "eager", "flash": "flash_attention_2"}

_FLASH = ("_flash_attn_forward", "_flash_attn_varlen_forward")  # the package's operators, known once it is imported


def configuration(job: Job, config: dict[str, Any]) -> Any:
    """As `transformers_config`, for a causal language model; refuses a model type that has none."""
    from transformers import AutoModelForCausalLM

    built = transformers_config(job, config)
    if type(built) not in AutoModelForCausalLM._model_mapping:
        raise InputError("model", job.model, f"model type {config['model_type']!r} has no causal language model in Transformers")
    return built


def transformers_config(job: Job, config: dict[str, Any]) -> Any:
    """The Transformers configuration object of `config`; refuses what Transformers does not know."""
    from transformers import AutoConfig

    fields = {k: v for k, v in config.items() if k not in {"model_type", "transformers_version", "torch_dtype", "dtype"}}
    try:
        built = AutoConfig.for_model(config["model_type"], **fields)
    except Exception as error:  # Transformers raises what its validators raise: any of a dozen types
        raise InputError("model", job.model, f"Transformers refuses this configuration: {_first_line(error)}") from None
    built.use_cache = False
    return built


def weight_dtype(recipe: Recipe) -> torch.dtype:
    """The type in which the base weights are loaded.

    fp32 master weights are kept by whoever updates them: by the parameters themselves with plain, DDP and FSDP mixed precision,
    by DeepSpeed's optimizer over 16-bit parameters otherwise. Frozen weights have no master copy.
    """
    if recipe.precision == "fp32":
        return torch.float32
    half = torch.float16 if recipe.precision == "fp16-mixed" else torch.bfloat16
    if recipe.precision == "bf16" or recipe.trains_adapters or recipe.engine == "deepspeed":
        return half
    return torch.float32


def from_config(kind: Any, job: Job, built: Any, world: World) -> Any:
    """The model that Transformers' automatic class `kind` picks, in the recipe's weight type and with its attention."""
    with _skipping_values(world):
        try:
            model = kind.from_config(built, dtype=weight_dtype(job.recipe), attn_implementation=_ATTENTION[job.recipe.attention])
        except (ImportError, ValueError) as error:
            raise InputError("recipe.attention", job.recipe.attention, _first_line(error)) from None
    model.tie_weights()
    return model


def _skipping_values(world: World) -> AbstractContextManager[None]:
    """Within it, Transformers' models get memory but no values, where nobody looks at them."""
    from transformers.initialization import no_init_weights

    return cast(AbstractContextManager[None], no_init_weights()) if world.weights == "empty" else nullcontext()


def initialise(model: nn.Module) -> None:
    """Random values for a model whose parameters were given memory only: by Transformers' own rules, adapters by PEFT's."""
    owner = next(module for module in model.modules() if hasattr(module, "_init_weights"))
    with torch.no_grad():
        for module in model.modules():
            cast(Any, owner)._init_weights(module)
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
            elif "lora_B" in name:
                nn.init.zeros_(parameter)


def recompute(model: nn.Module, recipe: Recipe) -> None:
    """Turn on activation recomputation of the decoder layers, as the Hugging Face Trainer does, without reentrance."""
    if recipe.recompute == "none":
        return
    kwargs: dict[str, Any] = {"use_reentrant": False}
    if recipe.recompute == "selective":
        kwargs["context_fn"] = _keep_expensive
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is None:  # Transformers before 5.20
        cast(Any, model).gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    else:
        enable(activation_checkpointing_kwargs=kwargs)
    if recipe.trains_adapters:
        cast(Any, model).enable_input_require_grads()


def _keep_expensive() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Selective recomputation: keep what matmuls and fused attention gave, recompute the rest (Korthikanti et al. 2022, PyTorch's policy)."""
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    aten = torch.ops.aten
    keep = [
        aten.mm.default,
        aten.addmm.default,
        aten.bmm.default,
        aten.baddbmm.default,
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        *(getattr(torch.ops.flash_attn, name).default for name in _FLASH if hasattr(torch.ops.flash_attn, name)),
    ]
    return cast(tuple[AbstractContextManager[None], AbstractContextManager[None]], create_selective_checkpoint_contexts(keep))


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
