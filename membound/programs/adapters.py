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

    bnb = _bitsandbytes()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=recipe.quantisation.type,
        bnb_4bit_use_double_quant=recipe.quantisation.double,
        bnb_4bit_compute_dtype=torch.bfloat16,
        # Sharding engines flatten parameters, which must then have a floating type (PEFT's FSDP and ZeRO-3 guides).
        bnb_4bit_quant_storage=torch.bfloat16 if recipe.engine in {"fsdp", "deepspeed"} else torch.uint8,
    )
    dense = {name: module.weight.data for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    biases = {name: module.bias for name, module in model.named_modules() if isinstance(module, nn.Linear)}
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
    return model


def _kept_dense(model: nn.Module) -> list[str]:
    """The output layer, which Transformers leaves unquantised."""
    head = cast(Any, model).get_output_embeddings()
    return [name for name, module in model.named_modules() if module is head]


def add_adapters(model: nn.Module, job: Job) -> nn.Module:
    """Freeze the base weights and add low-rank adapters to the target layers."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    recipe = job.recipe
    if recipe.method == "qlora":
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
        raise InputError("recipe.lora.targets", recipe.lora.targets, f"{str(error).split('.')[0]} of {job.model}") from None


def _fp32_adapters(recipe: Recipe) -> bool:
    return recipe.lora.dtype == "fp32" or recipe.precision != "bf16"


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise MissingPackageError("bitsandbytes", "recipe.method qlora", "qlora") from None
    return bitsandbytes
