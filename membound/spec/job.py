"""The Job: what is trained, on what data, by which recipe, on how many GPUs. Immutable; every field checked; unknown keys refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from membound.errors import InputError
from membound.spec.fields import Spec

Method = Literal["full", "lora", "qlora"]
Precision = Literal["bf16", "bf16-mixed", "fp16-mixed", "fp32"]
Optimizer = Literal["adamw", "adamw-fused", "adamw-8bit", "paged-adamw-8bit", "adafactor", "lamb", "sgd", "sgd-momentum"]
Engine = Literal["none", "ddp", "fsdp", "deepspeed"]
Place = Literal["none", "cpu", "nvme"]
Recompute = Literal["none", "full", "selective"]
Attention = Literal["sdpa", "flash", "eager"]
Kernels = Literal["eager", "compile", "liger"]

# An upper bound on every count: far above any real job, far below what would overflow or hang.
_MANY = 1 << 24
Count = Annotated[int, Field(ge=1, le=_MANY, strict=True)]


# The fields of `Data` of which exactly one is given.
_SOURCES = ("seq_len", "lengths", "path", "image_size", "samples")


class Data(Spec):
    """What is fed: fixed rows (`seq_len`), stored row lengths (`lengths`), the user's own file (`path` with `tokenizer`), images or plain samples."""

    seq_len: Count | None = None
    """Tokens in every row: packed or fixed."""
    lengths: Literal["alpaca"] | None = None
    """Name of a stored distribution of row lengths, in tokens."""
    path: str | None = None
    """JSON file of rows with instruction, input, output (Alpaca format)."""
    tokenizer: str | None = None
    """Folder of a Hugging Face tokenizer for `path`."""
    max_length: Count | None = None
    """Rows are truncated here, in tokens; memory is planned for a row of this length."""
    target_len: Count | None = None
    """Tokens in every row that an encoder-decoder writes; left out, as many as its training objective makes of `seq_len`."""
    image_size: Count | None = None
    """Pixels of an image's shorter side."""
    samples: Literal[True] | None = None
    """Samples without a length, as recommenders take them: a few numbers and categories each."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError("data", given, "give exactly one of seq_len, lengths, path (or image_size, samples for models that read no text)")
        if self.seq_len is not None and self.max_length is not None:
            raise InputError("data.max_length", self.max_length, "leave it out: seq_len fixes the length already")
        if self.max_length is not None and not self.has_tokens:
            raise InputError("data.max_length", self.max_length, "leave it out: only rows of tokens are truncated")
        if (self.path is None) != (self.tokenizer is None):
            raise InputError("data.tokenizer", self.tokenizer, "path and tokenizer go together")
        return self

    @property
    def source(self) -> str:
        """Name of the field that says what is fed."""
        return next(name for name in _SOURCES if getattr(self, name) is not None)

    @property
    def has_tokens(self) -> bool:
        """Whether rows consist of tokens. Of images and samples each counts as a row of one."""
        return self.image_size is None and self.samples is None

    @property
    def cap(self) -> int:
        """The longest row that a step may meet, in tokens."""
        return (self.seq_len or self.max_length or 512) if self.has_tokens else 1

    @property
    def padded(self) -> bool:
        """Whether the rows of a micro-batch differ in length, so that a padding mask is needed."""
        return self.lengths is not None or self.path is not None


class Lora(Spec):
    """The low-rank adapters (Hu et al. 2021)."""

    rank: Count = 16
    alpha: Annotated[float, Field(gt=0)] = 16
    """Scale: the adapters' output counts alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the linear layers that get an adapter; `all-linear` is PEFT's word for each but the head."""
    dtype: Literal["auto", "fp32"] = "auto"
    """`auto`: as PEFT chooses (fp32 adapters over 16-bit weights, except in pure bf16); `fp32`: always."""

    @model_validator(mode="after")
    def _some_target(self) -> Self:
        if not self.targets:
            raise InputError("recipe.lora.targets", self.targets, "name at least one linear layer, or write all-linear")
        return self


class Quantisation(Spec):
    """How the frozen base weights are stored (Dettmers et al. 2023)."""

    type: Literal["nf4", "fp4"] = "nf4"
    double: bool = True
    """Quantise the quantisation constants as well."""


class Offload(Spec):
    """Where optimizer states and parameters live between uses."""

    optimizer: Place = "none"
    params: Place = "none"


class Recipe(Spec):
    """How the model is trained."""

    method: Method = "full"
    lora: Lora = Lora()
    quantisation: Quantisation = Quantisation()
    precision: Precision = "bf16-mixed"
    """bf16: everything bf16. bf16-mixed: fp32 master weights with bf16 compute. fp16-mixed: the same in fp16 with loss scaling."""
    optimizer: Optimizer = "adamw"
    engine: Engine = "none"
    fsdp: Literal["full-shard", "grad-op", "hybrid"] = "full-shard"
    """FSDP2: reshard parameters after forward; keep them (shard gradients and optimizer only); or shard within a node, replicate across."""
    zero_stage: Annotated[int, Field(ge=0, le=3, strict=True)] | None = None
    """DeepSpeed ZeRO stage."""
    deepspeed_config: str | None = None
    """Path of the user's own DeepSpeed JSON, used as it is."""
    offload: Offload = Offload()
    recompute: Recompute = "none"
    """Activation recomputation: none; each decoder layer; or each layer but keeping matmul and attention outputs."""
    attention: Attention = "sdpa"
    kernels: Kernels = "eager"
    micro_batch: Count = 1
    """Rows per GPU in one forward pass."""
    accumulation: Count = 1
    """Micro-batches per optimizer step."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Clip the gradient norm to this; 0 leaves it alone. 1.0 is the Hugging Face Trainer's default."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for check in (_check_deepspeed_fields, _check_offload, _check_quantised, _check_optimizer, _check_lora):
            check(self)
        return self

    @model_serializer(mode="wrap")
    def _without_idle_parts(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What the method does not read is refused when written, so it must not be written out either.
        idle = {"full": {"lora", "quantisation"}, "lora": {"quantisation"}, "qlora": set()}[self.method]
        return {name: value for name, value in handler(self).items() if name not in idle}

    @property
    def trains_adapters(self) -> bool:
        """Whether the base weights are frozen."""
        return self.method != "full"


class Job(Spec):
    """Model, data, recipe and number of GPUs: what is asked."""

    model: str
    """Catalogue name, or path of a Hugging Face config.json or of a folder holding one."""
    data: Data
    recipe: Recipe = Field(default_factory=Recipe)
    gpus: Count = 1
    """Ranks: one process per GPU."""
    machine: str | None = None
    """Catalogue name of the machine; the command line may give it instead."""
    allow_code: bool = False
    """Let the model folder's own Python code run. Never set by anything but the user."""

    @model_validator(mode="after")
    def _engine_fits_gpus(self) -> Self:
        if self.gpus > 1 and self.recipe.engine == "none":
            raise InputError("recipe.engine", "none", f"{self.gpus} GPUs need ddp, fsdp or deepspeed")
        return self


def _check_deepspeed_fields(recipe: Recipe) -> None:
    if recipe.engine == "deepspeed":
        if (recipe.zero_stage is None) == (recipe.deepspeed_config is None):
            raise InputError("recipe.zero_stage", recipe.zero_stage, "with engine deepspeed give either zero_stage (0..3) or deepspeed_config")
        return
    for name in ("zero_stage", "deepspeed_config"):
        if getattr(recipe, name) is not None:
            raise InputError(f"recipe.{name}", getattr(recipe, name), f"only engine deepspeed reads it; the engine is {recipe.engine}")


def _check_offload(recipe: Recipe) -> None:
    offload = recipe.offload
    if offload == Offload():
        return
    if recipe.deepspeed_config is not None:
        raise InputError("recipe.offload", offload.model_dump(), "leave it out: the DeepSpeed JSON says what is offloaded")
    if recipe.engine == "fsdp":
        if (offload.optimizer, offload.params) != ("cpu", "cpu"):
            raise InputError("recipe.offload", offload.model_dump(), "FSDP offloads parameters and optimizer together: {optimizer: cpu, params: cpu}")
        return
    if recipe.engine != "deepspeed":
        raise InputError("recipe.offload", offload.model_dump(), f"engine {recipe.engine} cannot offload; use deepspeed or fsdp")
    if offload.params != "none" and recipe.zero_stage != 3:
        raise InputError("recipe.offload.params", offload.params, "parameters are offloaded by ZeRO stage 3 only")
    if offload.optimizer != "none" and not recipe.zero_stage:
        raise InputError("recipe.offload.optimizer", offload.optimizer, "needs ZeRO stage 1, 2 or 3")
    if offload.optimizer == "nvme" and recipe.zero_stage != 3:
        raise InputError("recipe.offload.optimizer", "nvme", "NVMe offload needs ZeRO stage 3")
    if offload.optimizer == "nvme" and recipe.precision == "bf16":
        # partitioned_optimizer_swapper.py asks its buffers of fp32 for states of bf16, as soon as a sub-group is large enough to be swapped.
        raise InputError(
            "recipe.precision", "bf16", "DeepSpeed swaps optimizer states of fp32 only to NVMe: write bf16-mixed, or offload them to cpu"
        )


def _check_quantised(recipe: Recipe) -> None:
    if recipe.method != "qlora":
        return
    if recipe.precision in {"fp32", "fp16-mixed"}:
        raise InputError("recipe.precision", recipe.precision, "QLoRA computes in bf16: write bf16 or bf16-mixed")
    if recipe.offload.params != "none" and recipe.engine == "deepspeed":
        raise InputError("recipe.offload.params", recipe.offload.params, "DeepSpeed offloads no NF4 weights: offload the optimizer only, or use lora")


def _check_optimizer(recipe: Recipe) -> None:
    eight_bit = recipe.optimizer in {"adamw-8bit", "paged-adamw-8bit"}
    if eight_bit and recipe.engine == "fsdp":
        raise InputError("recipe.optimizer", recipe.optimizer, "bitsandbytes' 8-bit optimizers refuse FSDP2's sharded parameters: use adamw")
    if recipe.offload.optimizer != "none" and recipe.engine == "deepspeed" and recipe.optimizer not in {"adamw", "adamw-fused"}:
        raise InputError("recipe.optimizer", recipe.optimizer, "with an offloaded optimizer DeepSpeed runs its own CPU AdamW: write adamw")


def _check_lora(recipe: Recipe) -> None:
    if recipe.method == "full" and "lora" in recipe.model_fields_set:
        raise InputError("recipe.lora", recipe.lora.model_dump(), "method full has no adapters: write method: lora, or leave lora out")
    if recipe.method != "qlora" and "quantisation" in recipe.model_fields_set:
        raise InputError("recipe.quantisation", recipe.quantisation.model_dump(), "only method qlora quantises the base weights")


def json_file(field: str, path: str) -> Any:
    """What the JSON file at `path` holds, which a Job's `field` names. Raises `InputError`."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise InputError(field, path, error.strerror or "cannot be read") from None
    except ValueError as error:
        raise InputError(field, path, f"is not JSON: {error}") from None


def deepspeed_json(path: str) -> dict[str, Any]:
    """The user's DeepSpeed configuration as a dict. Raises `InputError` for anything that is not a JSON object."""
    config = json_file("recipe.deepspeed_config", path)
    if not isinstance(config, dict):
        raise InputError("recipe.deepspeed_config", path, "must hold one JSON object")
    return config
