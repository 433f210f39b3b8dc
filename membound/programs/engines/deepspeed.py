"""DeepSpeed: its own engine, from recipe fields or from the user's own JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Final, cast

import torch
from torch import nn

from membound.errors import InputError, MissingPackageError
from membound.programs import adapters, optimizers
from membound.programs.engines import deepspeed_config
from membound.programs.engines.base import Build, Category, Engine, on_host, with_adapters
from membound.programs.engines.plain import quantised_states
from membound.programs.world import World
from membound.spec.job import Job, Recipe

# Where DeepSpeed's optimizers and swappers keep what; a name that a class does not have is simply not there.
_HELD: Final[dict[Category, tuple[str, ...]]] = {
    "weights": (
        "bit16_groups_flat",
        "param_buffer_of_bit16_for_cpu_offload_groups",
        "lp_param_buffer",
        "fp16_partitioned_groups_flat",
        "param_groups_fp16_flat_cpu_memory",
        "bf16_groups_flat",
        "fp16_groups_flat",
    ),
    "gradients": (
        "averaged_gradients",
        "all_grad_tensors",
        "grads_in_partition",
        "accumulated_grads_in_cpu",
        "grad_partitions_flat_buffer",
        "fp32_groups_gradients_flat",
        "fp32_groups_flat_grads",
    ),
    "optimizer": (
        "single_partition_of_fp32_groups",
        "fp32_partitioned_groups_flat",
        "fp32_groups_flat_partition",
        "fp32_groups_flat",
        "fp32_groups",
    ),
    "communication": ("ipg_buckets", "temp_grad_buffer_for_gpu_offload", "temp_grad_buffer_for_cpu_offload", "lp_param_contiguous_pin_buffer"),
}


class DeepSpeed(Engine):
    """`deepspeed.initialize` and its engine's `forward`, `backward`, `step`."""

    def __init__(self, job: Job, config: dict[str, Any], build: Build, world: World) -> None:
        deepspeed = _deepspeed()
        settings = deepspeed_config.settings(job, config)
        _refuse_impossible(job.recipe, settings)
        with world.watcher.phase("load"):
            model = _load(job, build, world, settings)
        with world.watcher.phase("prepare"), _refusals(job.recipe):
            own = None if "optimizer" in settings else optimizers.make(model.parameters(), job.recipe)
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            self.engine = deepspeed.initialize(model=model, optimizer=own, model_parameters=trained, config=settings, dist_init_required=False)[0]
        self.model = cast(nn.Module, self.engine.module)
        self._job = job

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return cast(torch.Tensor, self.engine(**batch).loss)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        self.engine.backward(loss)
        if not last:
            self.engine.step()  # counts the micro-step; DeepSpeed updates weights on the last alone

    def step(self) -> None:
        self.engine.step()

    def trained_state(self) -> dict[str, torch.Tensor]:
        if self.engine.zero_optimization_partition_weights() and not self._job.recipe.trains_adapters:
            if not self.engine.zero_gather_16bit_weights_on_model_save():
                return {}  # each rank saves its own part, from where it lies
            # What accelerate's get_state_dict calls; DeepSpeed has no public name for it.
            return cast(dict[str, torch.Tensor], self.engine._zero3_consolidated_16bit_state_dict() or {})
        return on_host(adapters.trained_state(self.model, self._job.recipe))

    def tensors(self, category: Category) -> Iterable[torch.Tensor]:
        held = vars(self.engine.optimizer)
        yield from _tensors([held.get(name) for name in _HELD[category]])
        parameters = list(self.model.parameters())
        match category:
            case "weights":
                yield from parameters
                yield from self.model.buffers()
                yield from quantised_states(self.model)
                yield from _tensors([[vars(p).get("ds_tensor"), vars(p).get("ds_secondary_tensor")] for p in parameters])
            case "gradients":
                masters = _tensors([held.get(name) for name in _HELD["optimizer"]])
                yield from (p.grad for p in (*parameters, *masters) if p.grad is not None)
                yield from _tensors([vars(p).get("grad_accum") for p in parameters])
            case "optimizer":
                inner = held.get("optimizer", self.engine.optimizer)  # stage 0 in fp32 wraps nothing
                yield from _tensors(list(inner.state.values()))
            case "communication":
                yield from _staging(held.get("optimizer_swapper"), parameters)


def _load(job: Job, build: Build, world: World, settings: dict[str, Any]) -> nn.Module:
    """The model as Transformers loads it under this configuration: whole on the host and moved, or partitioned from birth.

    Quantised weights are never partitioned from birth: Transformers quantises each rank's whole copy on its GPU, and DeepSpeed partitions
    the packed weights when it is initialised.
    """
    if deepspeed_config.stage(settings) == 3 and job.recipe.method != "qlora":
        with _partitioned_from_birth(job.recipe, settings):
            model = build()
        return with_adapters(model, job)
    model = build()
    if job.recipe.method == "qlora":
        model = adapters.quantise(model, job.recipe, world.device)
    return with_adapters(model.to(world.device), job)


def _partitioned_from_birth(recipe: Recipe, settings: dict[str, Any]) -> ExitStack:
    """ZeRO-3 partitions each parameter as its module is made, so that no rank ever holds the whole (transformers `get_init_context`)."""
    from transformers.integrations import deepspeed as integration

    # Transformers imports it when it first needs it; it compares PyTorch's own functions, some of which zero.Init replaces.
    import_module("torch._dynamo")
    stack = ExitStack()
    keeps_positions = vars(integration).get("prevent_arange_dtype_change")  # Transformers 5: rotary tables stay in fp32
    if keeps_positions is not None:
        stack.enter_context(keeps_positions())
    with _refusals(recipe):
        birth = _deepspeed().zero.Init(config_dict_or_path=settings)
    stack.enter_context(birth)
    return stack


@contextmanager
def _refusals(recipe: Recipe) -> Iterator[None]:
    """What DeepSpeed says against the user's own file is the user's to mend; what it says against ours is not."""
    kinds = (AssertionError, NotImplementedError, TypeError, ValueError, _deepspeed().DeepSpeedConfigError)
    try:
        yield
    except kinds as error:
        if recipe.deepspeed_config is None:
            raise
        raise InputError("recipe.deepspeed_config", recipe.deepspeed_config, f"DeepSpeed refuses it: {str(error)[:300]}") from error


def _refuse_impossible(recipe: Recipe, settings: dict[str, Any]) -> None:
    """What DeepSpeed or Transformers would refuse later and less clearly, or get wrong in silence."""
    zero = deepspeed_config.section(settings, "zero_optimization")
    place = deepspeed_config.section(zero, "offload_param").get("device", "none")
    if recipe.method == "qlora" and place != "none":
        cure = "DeepSpeed cannot offload NF4 weights: offload the optimizer only, or use lora"
        raise InputError("recipe.deepspeed_config", {"offload_param": place}, cure)
    if recipe.precision == "bf16" and not deepspeed_config.stage(settings):
        raise InputError("recipe.precision", "bf16", "DeepSpeed keeps fp32 master weights without ZeRO: write bf16-mixed, or zero_stage 1 to 3")
    eight_bit = recipe.optimizer in {"adamw-8bit", "paged-adamw-8bit"}
    if eight_bit and "optimizer" in settings:
        raise InputError("recipe.optimizer", recipe.optimizer, f"the DeepSpeed JSON names its own optimizer: {settings['optimizer'].get('type')}")


def _staging(optimizer_swapper: Any, parameters: list[nn.Parameter]) -> Iterator[torch.Tensor]:
    """The host buffers through which NVMe offload passes."""
    if optimizer_swapper is not None:
        yield from optimizer_swapper.swap_buffer_manager.all_buffers
    swapper = next((vars(p)["nvme_swapper"] for p in parameters if vars(p).get("nvme_swapper") is not None), None)
    if swapper is not None:
        yield from _tensors([swapper.buffers, swapper.partitioned_swap_buffer])


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple | set):
        for value in values:
            yield from _tensors(value)
    elif type(values).__name__.startswith("IPGBucket"):
        yield from _tensors(vars(values).get("buffer"))


def _deepspeed() -> Any:
    try:
        import deepspeed
    except ImportError:
        raise MissingPackageError("deepspeed", "recipe.engine deepspeed", "deepspeed") from None
    return deepspeed
