"""Every private PyTorch and Transformers interface that the ghost stands on. Nothing outside this file touches one.

Tested against torch 2.13; see docs/ghost.md for the versions that were tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

DummyBackendModule = backend_registration._DummyBackendModule
FLOP_FORMULAS: dict[Any, Callable[..., int]] = flop_registry
Overload = torch._ops.OpOverload
memory_format_of: Callable[[torch.Tensor], torch.memory_format] = torch._prims_common.suggest_memory_format
"""The layout that a tensor's strides suggest."""
tree_map: Callable[[Callable[[Any], Any], Any], Any] = torch.utils._pytree.tree_map
Modelled = Callable[..., Any]
"""Gives an operator's outputs as fresh tensors of the right shape, or None."""


def register_device(name: str, module: Any) -> None:
    """Make `name` a device with autograd, streams and events in a CPU build of PyTorch."""
    backend_registration._setup_privateuseone_for_python_backend(name, backend_module=module)


class DispatchMode(TorchDispatchMode):
    """A dispatch mode without the wrapper that hides it from torch.compile: nothing is compiled here, and it costs as much as the rest."""

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def fake_mode() -> FakeTensorMode:
    """Tensors have shape, type and device but no bytes."""
    dispatch = FakeTensorMode.__torch_dispatch__
    while hasattr(dispatch, "__wrapped__"):  # as above
        dispatch = dispatch.__wrapped__
    FakeTensorMode.__torch_dispatch__ = dispatch
    FakeTensorMode.avoid_device_init = property(lambda self: True)  # else making a ghost tensor asks for real kernels
    return FakeTensorMode(allow_non_fake_inputs=True)


def lift_from_host() -> None:
    """In this thread, tensors made from Python numbers begin on the host, as the fake mode wants.

    The mode sees to it in the thread that enters it; autograd runs backward, and recomputation with it, in a thread of its own.
    """
    torch._C._set_only_lift_cpu_tensors(True)


def make_fake(mode: FakeTensorMode, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A new tensor without bytes that plays to be on `device`."""
    with torch._C._DisableTorchDispatch():
        empty = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        return FakeTensor(mode, empty, device)


def fake_view(mode: FakeTensorMode, base: FakeTensor, shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> torch.Tensor:
    """Another tensor on the storage of `base`."""
    with torch._C._DisableTorchDispatch():
        empty = torch.empty(0, dtype=base.dtype, device="meta")
        empty.set_(base.untyped_storage(), offset, shape, stride)
        return FakeTensor(mode, empty, base.fake_device)


DEVICE_OF = torch.ops.prim.device.default
"""Not an operation: how a fake tensor is asked for its device."""


def is_fake(tensor: torch.Tensor) -> bool:
    """Whether `tensor` has no bytes."""
    return isinstance(tensor, FakeTensor)


def device_type(tensor: torch.Tensor) -> str:
    """Type of the device that `tensor` is on, or plays to be on."""
    return tensor.fake_device.type if isinstance(tensor, FakeTensor) else tensor.device.type


def storage_key(storage: torch.UntypedStorage) -> int:
    """Identity of a block of memory while it lives."""
    return int(storage._cdata)


def next_autograd_number() -> int:
    """The sequence number that the next autograd node will carry."""
    return int(torch._C._autograd._get_sequence_nr())


def current_autograd_number() -> int | None:
    """The sequence number of the autograd node whose backward is running, or None outside backward."""
    node = torch._C._current_autograd_node()
    return None if node is None else int(node._sequence_nr())


def group_size(args: tuple[Any, ...]) -> int:
    """Ranks in the process group among a collective's arguments; 0 if there is none."""
    import torch.distributed as dist

    for arg in args:
        if isinstance(arg, torch.ScriptObject):
            try:
                return int(dist.ProcessGroup.unbox(arg).size())
            except (RuntimeError, TypeError):
                continue
        if isinstance(arg, str) and args and arg.isdigit():
            try:
                return int(dist.distributed_c10d._resolve_process_group(arg).size())
            except (LookupError, RuntimeError, ValueError):
                continue
    return 0


def fake_process_group(size: int) -> None:
    """A process group of `size` ranks in which only rank 0 exists; its collectives move nothing."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())


def finished(out: tuple[Any, Any], held: Callable[[], bool]) -> tuple[Any, Any]:
    """What a real collective over gloo returned, once it is done and `held()` says that nobody holds its tensors any more.

    Its thread holds them for a moment longer, through the work that it was given: that is put in the past, a finished one in its place.
    """
    import torch.distributed as dist
    from torch._C._distributed_c10d import FakeWork

    results, work = out
    dist.Work.unbox(work).wait()
    del out, work
    while held():
        time.sleep(1e-4)
    return results, FakeWork().boxed()


def holders(tensor: torch.Tensor) -> int:
    """How many hold `tensor`, Python counting as one."""
    return int(tensor._use_count())


def allow_multi_tensor_optimizers() -> None:
    """PyTorch picks multi-tensor kernels for plain parameters on listed devices; the ghost is listed, its parameters' type is not."""
    from torch.optim import optimizer
    from torch.utils import _foreach_utils

    for types in (_foreach_utils._foreach_supported_types, optimizer._foreach_supported_types):
        if FakeTensor not in types:
            types.append(FakeTensor)


@contextmanager
def multi_tensor_on(device: str) -> Iterator[None]:
    """Optimizers pick multi-tensor kernels on `device` as well, where they exist but are not the default: on the CPU."""
    from torch.optim import optimizer

    original = optimizer._get_foreach_kernels_supported_devices
    optimizer._get_foreach_kernels_supported_devices = lambda: [*original(), device]
    try:
        yield
    finally:
        optimizer._get_foreach_kernels_supported_devices = original


_kernels: list[torch.library.Library] = []


def whole_kernels(names: tuple[str, ...]) -> None:
    """Operators that have one kernel on CUDA, but that PyTorch takes apart on a device that registers none: register one.

    It is never run: fake tensors answer before any kernel is reached.
    """

    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a ghost kernel was reached with real tensors")

    library = torch.library.Library("aten", "IMPL", "PrivateUse1")
    for name in names:
        library.impl(name, unreachable)
    _kernels.append(library)


def define_operators(namespace: str, operators: dict[str, Modelled]) -> None:
    """Register operators by schema; each is its model, and has no kernel: it runs on fake tensors only."""
    library = torch.library.Library(namespace, "FRAGMENT")
    for schema, model in operators.items():
        library.define(schema)
        torch.library.register_fake(f"{namespace}::{schema.partition('(')[0]}", model, lib=library)
    _kernels.append(library)


def reparametrised(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> Any:
    """While entered, `module` computes with `tensors` for its parameters and buffers."""
    from torch.nn.utils import stateless

    return stateless._reparametrize_module(module, tensors)


def ahead_of_time(function: Callable[..., Any], compiler: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """`function` through AOTAutograd with Inductor's decompositions and min-cut partition; `compiler` gets forward's and backward's graphs."""
    from torch._functorch.aot_autograd import aot_function
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    made: Any = aot_function(function, compiler, compiler, min_cut_rematerialization_partition, select_decomp_table())
    compiled: Callable[..., Any] = made
    return compiled


def flash_attention_is_there(fixed: Callable[..., Any], ragged: Callable[..., Any]) -> None:
    """Transformers takes `fixed` and `ragged` for flash_attn's functions and believes the package to be installed."""
    from transformers import modeling_flash_attention_utils as utils

    def always(*args: Any, **kwargs: Any) -> bool:
        return True

    original = utils._lazy_imports

    def lazy_imports(implementation: str | None, *args: Any, **kwargs: Any) -> Any:
        if implementation != "flash_attention_2":
            return original(implementation, *args, **kwargs)
        return fixed, ragged, None, utils._pad_input, utils._unpad_input

    utils._lazy_imports = lazy_imports
    utils.is_flash_attn_2_available = always
    matrix: dict[int, Any] = utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX
    matrix[2] |= {"general_availability_check": always, "pkg_availability_check": always, "supported_devices": ((always, "ghost"),)}


def replace_module_apply() -> None:
    """`nn.Module._apply` swaps tensors in place, which fake parameters refuse; replace it by one that makes new parameters."""
    torch.nn.Module._apply = _apply


def _apply(self: torch.nn.Module, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> torch.nn.Module:
    if recurse:
        for child in self.children():
            child._apply(fn)
    for name, parameter in list(self._parameters.items()):
        if parameter is not None:
            _apply_to_parameter(self, name, parameter, fn)
    for name, buffer in list(self._buffers.items()):
        if buffer is not None:
            self._buffers[name] = fn(buffer)
    return self


def _apply_to_parameter(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter, fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
    held = vars(parameter)
    if "moved_to" in held:  # tied weights: the same parameter under another name
        module._parameters[name] = held["moved_to"]
        return
    if type(parameter).__name__ == "Params4bit":  # moves with its scales, by its own rule
        module._parameters[name] = fn(parameter)
        return
    with torch.no_grad():
        moved = fn(parameter.data)
    # Identity is kept where nothing changes: engines hold references to parameters.
    if (moved.device, moved.dtype) != (parameter.device, parameter.dtype):
        new = torch.nn.Parameter(moved, requires_grad=parameter.requires_grad)
        module._parameters[name] = held["moved_to"] = new


def replace_record_stream(heard: Callable[[torch.Tensor, Any], None]) -> None:
    """`Tensor.record_stream` has no kernel on the ghost: tell `heard`."""
    torch.Tensor.record_stream = lambda self, stream: heard(cast(torch.Tensor, self), stream)


def replace_storage_resize(heard: Callable[[torch.UntypedStorage, int], None]) -> Callable[[], None]:
    """FSDP frees and restores parameters by resizing storages, which no dispatcher sees: tell `heard`. Returns how to undo it."""
    original = torch.UntypedStorage.resize_

    def resize_(self: torch.UntypedStorage, size: int) -> Any:
        heard(self, size)
        return original(self, size)

    torch.UntypedStorage.resize_ = resize_

    def undo() -> None:
        torch.UntypedStorage.resize_ = original

    return undo


def replace_lstm(lstm: Callable[..., Any]) -> None:
    """`nn.LSTM` calls a function of PyTorch's C++ that asks for CUDA before it takes cuDNN: let it call `lstm`, packed rows excepted."""
    original = torch._VF.lstm

    def run(*args: Any) -> Any:
        packed = isinstance(args[1], torch.Tensor)  # then the second argument counts rows
        return original(*args) if packed else lstm(*args)

    torch._VF.lstm = run


def untraced_masks() -> None:
    """Transformers takes a fake tensor for tracing and would build a mask that real runs never build."""
    import transformers.masking_utils

    if hasattr(transformers.masking_utils, "is_tracing"):
        transformers.masking_utils.is_tracing = lambda *args: False


_autocast_libraries: dict[tuple[str, str], Any] = {}


def autocast_kernel(name: str, kernel: Callable[..., Any], backend: str = "PrivateUse1") -> None:
    """Under autocast on `backend` (the ghost's, or CPU), `aten::name` runs as `kernel(func, *args)`, where `func` runs without autocast."""
    packet, _, overload = name.partition(".")
    if not hasattr(torch.ops.aten, packet) or (overload or "default") not in getattr(torch.ops.aten, packet).overloads():
        return  # another version of PyTorch
    func = getattr(getattr(torch.ops.aten, packet), overload or "default")
    key = f"Autocast{backend}"
    library = _autocast_libraries.get(("aten", backend))
    if library is None:
        library = _autocast_libraries["aten", backend] = torch.library.Library("aten", "IMPL", key)
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return kernel(func, *args, **kwargs)

    library.impl(name, run)


def has_autocast_kernel(name: str, backend: str) -> bool:
    """Whether PyTorch itself has a rule for `aten::name` under autocast on `backend`."""
    key = f"Autocast{backend}"
    return bool(torch._C._dispatch_has_kernel(f"aten::{name}") and torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", key))


def forget_autocast_kernels(backend: str) -> None:
    """Take back what `autocast_kernel` gave to `backend`."""
    library = _autocast_libraries.pop(("aten", backend), None)
    if library is not None:
        library._destroy()


def autocast_fallthrough() -> None:
    """Operators without an autocast rule pass through."""
    library = _autocast_libraries["_", "PrivateUse1"] = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)


def on_autocast_exit(heard: Callable[[], None]) -> None:
    """Call `heard` when the outermost autocast block ends."""
    original = torch.clear_autocast_cache

    def clear() -> None:
        heard()
        original()

    torch.clear_autocast_cache = clear


def real_device_meshes() -> None:
    """A device mesh computes this rank's coordinates from real numbers: let it, outside the fake mode."""
    from torch.distributed import device_mesh
    from torch.utils._python_dispatch import _disable_current_modes

    def outside(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return original(*args, **kwargs)

        return run

    device_mesh.init_device_mesh = outside(device_mesh.init_device_mesh)
    for name in ("__init__", "__getitem__", "_flatten"):
        setattr(device_mesh.DeviceMesh, name, outside(getattr(device_mesh.DeviceMesh, name)))


def unheard_sharding_propagation(pause: Callable[[], Any]) -> Callable[[], None]:
    """DTensor works out result shapes on whole-sized fake tensors that no GPU ever holds: `pause()` is entered while it does.

    Returns how to undo it.
    """
    from torch.distributed.tensor import _sharding_prop

    original = _sharding_prop.ShardingPropagator._propagate_tensor_meta_non_cached

    def quiet(self: Any, *args: Any, **kwargs: Any) -> Any:
        with pause():
            return original(self, *args, **kwargs)

    def undo() -> None:
        _sharding_prop.ShardingPropagator._propagate_tensor_meta_non_cached = original

    _sharding_prop.ShardingPropagator._propagate_tensor_meta_non_cached = quiet
    return undo


def trusting_ddp() -> None:
    """Let DDP's own reducer run on a fake process group.

    It compares parameter shapes among ranks by reading real numbers: the ghost's ranks are alike by construction. And it reads the
    reduced bucket out of the collective's future, where a fake one holds nothing: a hook all-reduces the bucket and hands it back.
    """
    import torch.distributed as dist
    import torch.nn.parallel.distributed as ddp

    _all_reduce_bucket.__annotations__ = {"bucket": vars(dist)["GradBucket"]}  # DDP insists on the class itself
    ddp._verify_param_shape_across_processes = lambda *args, **kwargs: None
    ddp._sync_module_states = lambda *args, **kwargs: None
    # After the first step DDP makes its buckets anew, by indices that all ranks agree on; the ghost's are at once what they become then.
    torch._C._distributed_c10d.Reducer._rebuild_buckets = lambda self: False
    dist._compute_bucket_assignment_by_size = _rebuilt_buckets(dist._compute_bucket_assignment_by_size)
    original = ddp.DistributedDataParallel.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.register_comm_hook(None, _all_reduce_bucket)

    ddp.DistributedDataParallel.__init__ = init


def _rebuilt_buckets(assign: Callable[..., Any]) -> Callable[..., Any]:
    """DDP's assignment of parameters to buckets. It begins with one for all; from the second step on they follow the order in which gradients
    come, which is that of the parameters from last to first, and hold what DDP's defaults say: the first 1 MiB, each other 25 MiB."""
    import torch.distributed as dist

    limits = [int(dist._DEFAULT_FIRST_BUCKET_BYTES), 25 * 2**20]  # torch/nn/parallel/distributed.py, bucket_cap_mb

    def run(parameters: list[torch.Tensor], asked: list[int], sparse: list[bool], *args: Any) -> Any:
        if len(asked) > 1 or sum(p.numel() * p.element_size() for p in parameters) <= limits[0]:
            return assign(parameters, asked, sparse, *args)
        last = len(parameters) - 1
        buckets, sizes = assign(parameters[::-1], limits, sparse[::-1], *args)
        return [[last - i for i in bucket] for bucket in reversed(buckets)], sizes[::-1]

    return run


def _all_reduce_bucket(state: Any, bucket: Any) -> Any:
    import torch.distributed as dist

    dist.all_reduce(bucket.buffer(), async_op=True)
    future: Any = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


# From how many ranks on a parameter is cut lazily: below, PyTorch's own cut is cheap, and runs as it is.
_MANY_RANKS = 64


class _Chunks:
    """What `torch.chunk` gives, padded with empty tensors to `count`; each is cut when it is asked for."""

    def __init__(self, tensor: torch.Tensor, count: int, dim: int) -> None:
        self._tensor, self._count, self._dim = tensor, count, dim

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> torch.Tensor:
        whole = self._tensor.shape[self._dim]
        size = -(-whole // self._count)
        start = index * size
        if start >= whole:
            return self._tensor.new_empty(0)
        return self._tensor.narrow(self._dim, start, min(size, whole - start))


def lazy_shards() -> None:
    """FSDP2 cuts each parameter into as many views as there are ranks and takes one: with a thousand ranks, cut that one alone."""
    from torch.distributed.fsdp._fully_shard import _fsdp_param

    original = _fsdp_param._chunk_with_empty

    def cut(tensor: torch.Tensor, num_chunks: int, dim: int) -> Any:
        return _Chunks(tensor, num_chunks, dim) if num_chunks >= _MANY_RANKS else original(tensor, num_chunks, dim)

    _fsdp_param._chunk_with_empty = cut
