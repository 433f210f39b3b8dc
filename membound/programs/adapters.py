"""LoRA and QLoRA, prepared as PEFT and Transformers prepare them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from membound.errors import InputError, MissingPackageError
from membound.spec.job import Job, Recipe


def quantise(model: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """Replace the linear layers by bitsandbytes' 4-bit ones and quantise each weight on `device`, one by one, as `from_pretrained` does.

    The head stays in 16 bits, as Transformers leaves it.
    """
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.pytorch_utils import Conv1D

    bnb = _bitsandbytes()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=recipe.quantisation.type,
        bnb_4bit_use_double_quant=recipe.quantisation.double,
        bnb_4bit_compute_dtype=torch.bfloat16,
        # Sharding engines flatten parameters, which must then have a floating type (PEFT's FSDP and ZeRO-3 guides).
        bnb_4bit_quant_storage=torch.bfloat16 if recipe.engine in {"fsdp", "deepspeed"} else torch.uint8,
    )
    # GPT-2's Conv1D is a linear layer whose weight is transposed: Transformers turns it round when it quantises.
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    dense = {name: module.weight.data.T if isinstance(module, Conv1D) else module.weight.data for name, module in linear.items()}
    biases = {name: module.bias for name, module in linear.items()}
    model = cast(nn.Module, replace_with_bnb_linear(model, _kept_dense(model), config) or model)
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit) and name in dense:
            module.weight = bnb.nn.Params4bit(
                dense.pop(name),
                requires_grad=False,
                compress_statistics=recipe.quantisation.double,
                quant_type=recipe.quantisation.type,
                quant_storage=config.bnb_4bit_quant_storage,
                module=module,
            ).to(device)
            module.bias = biases[name]
    cast(Any, model).is_loaded_in_4bit = True
    cast(Any, model).quantization_method = "bitsandbytes"
    cast(Any, model).config._is_quantized = True  # 4-bit weights have no type for flash attention to compute in: it takes the model's
    return model


def _kept_dense(model: nn.Module) -> list[str]:
    """The output layer, which Transformers leaves unquantised."""
    head = cast(Any, model).get_output_embeddings()
    return [name for name, module in model.named_modules() if module is head]


def add_adapters(model: nn.Module, job: Job) -> nn.Module:
    """Freeze the base weights and add low-rank adapters to the target layers."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    recipe = job.recipe
    # TRL, which PEFT's guide to QLoRA with FSDP trains with, leaves the rest in 16 bits. A study may ask for either (see `losses`).
    if recipe.method == "qlora" and cast(Any, model).config.to_dict().get("membound", {}).get("upcast", recipe.engine != "fsdp"):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=int(recipe.lora.alpha),
        lora_dropout=recipe.lora.dropout,
        target_modules=recipe.lora.targets if recipe.lora.targets == "all-linear" else list(recipe.lora.targets),
        task_type="CAUSAL_LM",
    )
    try:
        return cast(nn.Module, get_peft_model(model, config, autocast_adapter_dtype=_fp32_adapters(recipe)))
    except ValueError as error:
        missing = "not found in the base model" in str(error)
        why = "not found in the base model" if missing else f"PEFT refuses them ({str(error).partition('. ')[0][:200]}) on the base model"
        cure = f"{why} of {job.model}, whose linear layers are {', '.join(linear_layers(model))}; or write all-linear"
        raise InputError("recipe.lora.targets", recipe.lora.targets, cure) from None


def linear_layers(model: nn.Module) -> list[str]:
    """Last names of the linear layers that may get an adapter, in the model's order; the head is none of them."""
    from transformers.pytorch_utils import Conv1D

    head = cast(Any, model).get_output_embeddings()
    found = [path for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head]
    return list(dict.fromkeys(path.rpartition(".")[2] for path in found))


def trained_state(model: nn.Module, recipe: Recipe) -> dict[str, torch.Tensor]:
    """The weights that a recipe saves: all of them, or the adapters alone."""
    if not recipe.trains_adapters:
        return model.state_dict()
    from peft import get_peft_model_state_dict

    return cast(dict[str, torch.Tensor], get_peft_model_state_dict(model, save_embedding_layers=False))


def _fp32_adapters(recipe: Recipe) -> bool:
    return recipe.lora.dtype == "fp32" or recipe.precision != "bf16"


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise MissingPackageError("bitsandbytes", "recipe.method qlora", "qlora") from None
    return bitsandbytes
