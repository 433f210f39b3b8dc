"""DeepSpeed's asynchronous file I/O on the ghost: reads and writes leave instructions, files are storages on NVMe."""

from __future__ import annotations

from typing import Any

import torch

from membound.ghost.operands import size_of
from membound.ghost.recorder import Recorder
from membound.trace.schema import CATEGORY, PLACE


class Disk:
    """Stands for the compiled modules `async_io` and `pin_memory`: makes handles, and knows what lies in which file."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._files: dict[str, int] = {}

    def aio_handle(self, *args: Any, **kwargs: Any) -> Handle:
        """A queue of reads and writes; block size and depth belong to the machine, not to the Trace."""
        return Handle(self._recorder, self)

    def pin_handle(self, *args: Any, **kwargs: Any) -> Handle:
        """The allocator of page-locked host memory."""
        return Handle(self._recorder, self)

    def file(self, path: str, nbytes: int) -> int:
        """The storage of the file at `path`, `nbytes` long; new, or new in size, if need be."""
        builder = self._recorder.builder
        known = self._files.get(path)
        if known is not None and builder.nbytes(known) >= nbytes:
            return known
        if known is not None:
            builder.free(known)
        made = self._files[path] = builder.alloc(PLACE["nvme"], nbytes, 0, builder.ops.code("nvme.write"), _category(path))
        return made


class Handle:
    """One handle of DeepSpeed's `aio_handle` (csrc/aio/py_lib/py_ds_aio.cpp)."""

    def __init__(self, recorder: Recorder, disk: Disk) -> None:
        self._recorder, self._disk = recorder, disk
        self._pending = 0

    def async_pread(self, buffer: torch.Tensor, path: str, offset: int = 0) -> int:
        """Start to read the file at `path` into `buffer`."""
        self._recorder.launch("host", "nvme.read", writes=(buffer,), nbytes=size_of(buffer), read_storages=(self._file(buffer, path),))
        self._pending += 1
        return 0

    def async_pwrite(self, buffer: torch.Tensor, path: str, offset: int = 0) -> int:
        """Start to write `buffer` to the file at `path`."""
        self._recorder.launch("host", "nvme.write", reads=(buffer,), nbytes=size_of(buffer), written_storages=(self._file(buffer, path),))
        self._pending += 1
        return 0

    def sync_pread(self, buffer: torch.Tensor, path: str, offset: int = 0) -> int:
        """Read and wait; returns how many requests are done."""
        self.async_pread(buffer, path)
        return self.wait()

    def sync_pwrite(self, buffer: torch.Tensor, path: str, offset: int = 0) -> int:
        """Write and wait; returns how many requests are done."""
        self.async_pwrite(buffer, path)
        return self.wait()

    def wait(self) -> int:
        """The host waits for all that was started; returns how many requests that were."""
        self._recorder.launch("host", "nvme.wait")
        done, self._pending = self._pending, 0
        return done

    def new_cpu_locked_tensor(self, count: int, like: torch.Tensor) -> torch.Tensor:
        """A page-locked host buffer of `count` elements of `like`'s type."""
        return torch.empty(count, dtype=like.dtype, device="cpu", pin_memory=True)

    def free_cpu_locked_tensor(self, buffer: torch.Tensor) -> bool:
        """The buffer dies with its last reference."""
        return True

    def is_pinned(self, buffer: torch.Tensor) -> bool:
        """Whether I/O can use `buffer` as it is."""
        return self._recorder.storages.pinned(buffer)

    def _file(self, buffer: torch.Tensor, path: str) -> int:
        return self._disk.file(path, size_of(buffer))


def _category(path: str) -> int:
    """DeepSpeed's folders say what a file holds: `.../optimizer/rank0/7_gradient_0_4096.tensor.swp`, `.../bfloat16params/rank0/...`."""
    if "_gradient_" in path:
        return CATEGORY["gradients"]
    return CATEGORY["optimizer"] if "/optimizer/" in path else CATEGORY["weights"]
