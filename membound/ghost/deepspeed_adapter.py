"""Makes the real DeepSpeed run on the ghost: as on CUDA, its compiled operators recorded instead of built."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from membound.errors import MissingPackageError
from membound.ghost.recorder import Recorder
from membound.trace.schema import CATEGORY


def install(recorder: Recorder) -> None:
    """Give DeepSpeed the ghost for an accelerator. To be called before anything else imports DeepSpeed."""
    import_as_on_cuda()
    from deepspeed.accelerator import real_accelerator

    from membound.ghost import deepspeed_operators
    from membound.ghost.deepspeed_accelerator import GhostAccelerator

    real_accelerator.set_accelerator(GhostAccelerator(recorder))
    deepspeed_operators.replace(recorder)
    _trust_other_ranks()
    _hold_until_waited()
    _name_gradients(recorder)
    _touch_no_disk()
    _ask_no_processor()
    _spare_what_shows_nowhere()


def import_as_on_cuda() -> None:
    """DeepSpeed picks its operators' builders while it is imported, by the accelerator that it finds then."""
    before = os.environ.get("DS_ACCELERATOR")
    os.environ["DS_ACCELERATOR"] = "cuda"
    try:
        import deepspeed
    except ImportError:
        raise MissingPackageError("deepspeed", "recipe.engine deepspeed", "deepspeed") from None
    finally:
        if before is None:
            del os.environ["DS_ACCELERATOR"]
        else:
            os.environ["DS_ACCELERATOR"] = before
    _quiet(deepspeed.utils.logger)


def _quiet(logger: logging.Logger) -> None:
    """Standard output carries one document and nothing else; DeepSpeed logs there, and prints what a JSON asks to be timed."""
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    for name, module in list(sys.modules.items()):
        if name.startswith("deepspeed."):
            vars(module)["print"] = partial(print, file=sys.stderr)
    # DeepSpeed asserts that its partitions are aligned by their addresses; a fake tensor's address is 0, which is.
    warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")


def _trust_other_ranks() -> None:
    """ZeRO-3 compares its order of modules with rank 0's while it learns it: the same traffic, without the values that nobody has."""
    import torch
    from deepspeed import comm
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.zero import partitioned_param_coordinator, utils

    def same_on_all_ranks(ints: list[int]) -> None:
        for values in (len(ints), ints):
            told = torch.tensor(values, dtype=torch.int64, device=get_accelerator().current_device_name())
            comm.broadcast(told, src=0, async_op=False)
            told.cpu()

    for module in (utils, partitioned_param_coordinator):
        module.assert_ints_same_as_other_ranks = same_on_all_ranks


class _Work:
    """The work of an asynchronous collective over NCCL: it holds the collective's tensors until somebody waits for it.

    ProcessGroupNCCL stashes them, inputs too, instead of noting its stream with the allocator (torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp,
    TensorShelf; so in PyTorch 2.11). With offloaded parameters the input is the GPU's copy of a partition, which nobody else holds. What was
    never waited for is let go with the work; a real run's watchdog, which looks each 100 ms, may let go sooner.
    """

    def __init__(self, work: Any, held: list[Any]) -> None:
        self._work, self._held = work, held

    def wait(self, *args: Any) -> Any:
        done = self._work.wait(*args)
        self._held.clear()
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


def _hold_until_waited() -> None:
    from deepspeed.comm.torch import TorchBackend

    def holding(start: Callable[..., Any]) -> Callable[..., Any]:
        def held(backend: Any, *args: Any, **kwargs: Any) -> Any:
            work = start(backend, *args, **kwargs)
            return work if work is None else _Work(work, [args, kwargs])

        return held

    for name in ("all_gather_into_tensor", "all_gather", "all_reduce", "broadcast", "reduce_scatter_tensor", "all_to_all_single"):
        setattr(TorchBackend, name, holding(getattr(TorchBackend, name)))


def _name_gradients(recorder: Recorder) -> None:
    """A gradient dies within backward once it is reduced: say what it is while it lives."""
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def naming(reduce: Callable[..., Any]) -> Callable[..., Any]:
        def named(optimizer: Any, param: Any, *args: Any) -> Any:
            number = recorder.storages.number_of(param.grad) if param.grad is not None else None
            if number is not None and recorder.builder.category_of(number) == CATEGORY["temporaries"]:
                recorder.builder.categorise(number, CATEGORY["gradients"])
            return reduce(optimizer, param, *args)

        return named

    for optimizer in (DeepSpeedZeroOptimizer, DeepSpeedZeroOptimizer_Stage3):
        optimizer.reduce_independent_p_g_buckets_and_remove_grads = naming(optimizer.reduce_independent_p_g_buckets_and_remove_grads)


class _Disk:
    """A module as it is, but for the functions that would touch the user's disk."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _touch_no_disk() -> None:
    """NVMe offload empties and makes folders under `nvme_path`; that path may well mean something on this machine."""
    from deepspeed.runtime.swap_tensor import optimizer_utils, partitioned_param_swapper
    from deepspeed.runtime.zero import stage3

    disk = _Disk(os, makedirs=lambda *args, **kwargs: None)
    for module in (optimizer_utils, partitioned_param_swapper, stage3):
        module.os = disk
    partitioned_param_swapper.shutil = SimpleNamespace(rmtree=lambda *args, **kwargs: None)


def _ask_no_processor() -> None:
    """CPU Adam asks for this machine's processor, by running programs, to warn of fp16 on one vendor's: not the machine in question."""
    try:
        import cpuinfo
    except ImportError:
        return
    cpuinfo.get_cpu_info = dict


def _spare_what_shows_nowhere() -> None:
    """Names of ranges for a profiler, at each call of ZeRO's functions; and the signature of its linear layer, worked out anew at each call."""
    from deepspeed.runtime.zero.linear import LinearFunctionForZeroStage3
    from deepspeed.utils import nvtx

    nvtx.enable_nvtx = False
    vars(LinearFunctionForZeroStage3.forward)["__signature__"] = inspect.signature(LinearFunctionForZeroStage3.forward)
