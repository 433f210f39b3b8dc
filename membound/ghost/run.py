"""Run a Program on the ghost GPU in this process and return its Trace. `capture.py` runs this in a child."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from membound.ghost import autocast, choices, cudnn, device, flash_attention, handlers
from membound.ghost.header import header, left_dense, shortened
from membound.ghost.private.compiling import nothing_is_compiled
from membound.ghost.private.ddp import trusting_ddp
from membound.ghost.private.distributed import fake_process_group, real_device_meshes, unheard_sharding_propagation
from membound.ghost.private.fakes import fake_mode, without_rules
from membound.ghost.private.fsdp import lazy_shards, replace_storage_resize
from membound.ghost.private.hugging_face import untraced_masks
from membound.ghost.private.modules import replace_module_apply, replace_record_stream
from membound.ghost.private.operators import register_device
from membound.ghost.recorder import Recorder
from membound.ghost.shortcut import Shortcut
from membound.ghost.watcher import GhostWatcher
from membound.programs import data, registry
from membound.programs.world import World
from membound.spec import families
from membound.spec.job import Job
from membound.trace.schema import KIND, Trace

STEPS = 2
"""The first optimizer step, which makes the optimizer's states, and one in which they stand."""


class _Log:
    """Streams and events, into the recorder's builder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def recorded(self, stream: int, event: int) -> None:
        self._recorder.builder.add(KIND["record"], 0, stream, event)

    def waited(self, stream: int, event: int) -> None:
        self._recorder.builder.add(KIND["wait"], 0, stream, event)

    def synchronised(self, stream: int) -> None:
        self._recorder.builder.add(KIND["sync"], 0, max(stream, 0), stream)

    def emptied_cache(self) -> None:
        self._recorder.builder.add(KIND["empty_cache"])


def record(
    job: Job,
    config: dict[str, Any],
    ranks_per_node: int,
    steps: int = STEPS,
    on_failure: Callable[[BaseException], None] | None = None,
    on_micro_step: Callable[[int, int], None] = lambda done, total: None,
) -> Trace:
    """Run the Job's Program as rank 0 of `job.gpus` on the ghost and return what it launched.

    To be called once per process: it replaces parts of PyTorch for good. `on_failure` hears of an operation's exception where it arises,
    `on_micro_step` of each micro-step that begins: how many are done, of how many.
    """
    short = shortened(job)
    program = registry.program(short, config)
    masked = data.needs_mask(job.data, job.recipe.micro_batch)
    recorder = Recorder(device.NAME, handlers.make(_answers(job, masked)), choices.HIDDEN)
    recorder.on_failure = on_failure
    _haunt(job, recorder, ranks_per_node)
    watcher = GhostWatcher(recorder)
    world = World(torch.device(device.NAME, 0), size=job.gpus, per_node=min(ranks_per_node, job.gpus), weights="empty", saves=True, watcher=watcher)

    def batch(index: int) -> dict[str, torch.Tensor]:
        on_micro_step(index, steps * short.recipe.accumulation)
        return program.planned()

    mode = fake_mode()
    recorder.shortcut = Shortcut(mode)
    with mode, recorder:
        engine = program.run(world, steps, batch)
        about = header(job, world, steps, engine.model, _notes(job, families.of(config)) + left_dense(engine.model))
        recorder.where.close()
        return recorder.builder.finish(**about)


def _notes(job: Job, family: families.Family) -> tuple[str, ...]:
    """What is modelled rather than run."""
    from membound.ghost import compiled, liger

    modelled = (
        (job.recipe.attention == "flash", flash_attention.NOTE),
        (job.recipe.kernels == "liger", liger.NOTE),
        (job.recipe.kernels == "compile", compiled.NOTE),
        (family.name == "recurrent", cudnn.NOTE),
    )
    return tuple(note for used, note in modelled if used)


def _answers(job: Job, masked: bool) -> handlers.Answers:
    """What holds of the micro-batch that `data.planned` makes."""
    rows, cap = job.recipe.micro_batch, job.data.cap
    kept = (cap + (rows - 1) * (cap // 2)) / (rows * cap) if masked else 1.0
    fp16 = job.recipe.precision == "fp16-mixed"
    return handlers.Answers(masked, kept, cap, fp16 or job.recipe.accumulation > 1, fp16 and job.recipe.engine == "fsdp")


def _haunt(job: Job, recorder: Recorder, ranks_per_node: int) -> None:
    """Make the ghost a device of this process, with CUDA's choices, and its rank 0 of the Job's ranks."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(job.gpus), LOCAL_WORLD_SIZE=str(min(job.gpus, ranks_per_node)))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500", HF_HUB_OFFLINE="1")
    register_device(device.NAME, device.Backend())
    without_rules(Recorder)
    replace_module_apply()
    replace_record_stream(lambda tensor, stream: _in_use(recorder, tensor, stream))
    replace_storage_resize(recorder.storages.resized)
    untraced_masks()
    choices.apply()
    if job.recipe.attention == "flash":
        flash_attention.install()
    if job.recipe.kernels == "liger":
        from membound.ghost import liger

        liger.install()
    if job.recipe.kernels == "compile":
        from membound.ghost import compiled

        compiled.install(recorder, job.recipe)
    else:
        nothing_is_compiled()
    autocast.install(device.NAME)
    device.hear(_Log(recorder), min(job.gpus, ranks_per_node))
    if job.recipe.engine != "none":
        fake_process_group(job.gpus)
        real_device_meshes()
        trusting_ddp()
        unheard_sharding_propagation(recorder.pause)
    if job.recipe.method == "qlora" or job.recipe.optimizer in {"adamw-8bit", "paged-adamw-8bit"}:
        from membound.ghost import bitsandbytes_adapter

        bitsandbytes_adapter.install(recorder)
    if job.recipe.engine == "fsdp":
        lazy_shards()
    if job.recipe.engine == "deepspeed":
        from membound.ghost import deepspeed_adapter
        from membound.programs.engines import deepspeed_config

        deepspeed_config.check(job)  # here, where accumulation is the Job's own, not what is captured of it
        deepspeed_adapter.install(recorder)


def _in_use(recorder: Recorder, tensor: torch.Tensor, stream: Any) -> None:
    number = recorder.storages.number_of(tensor)
    if number is not None:
        recorder.builder.add(KIND["record_stream"], 0, stream.id, number)
