"""FSDP2: storages that are resized, parameters that are cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# From how many ranks on a parameter is cut lazily: below, PyTorch's own cut is cheap, and runs as it is.
_MANY_RANKS = 64


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
