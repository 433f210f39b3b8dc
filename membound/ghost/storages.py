"""Storages as the recorder numbers them: new when an operand first lies in one, freed when nobody holds it any more."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from membound.ghost import device
from membound.ghost.private.fakes import device_type, storage_key
from membound.trace.builder import TraceBuilder
from membound.trace.schema import CATEGORY, PLACE


class Storages:
    """The live storages of a Program, each under its number in the builder, which hears when one comes and goes.

    `gpu` is the type of the device whose memory counts as the GPU's.
    """

    def __init__(self, builder: TraceBuilder, gpu: str) -> None:
        self._builder = builder
        self._gpu = gpu
        self._ids: dict[int, int] = {}
        self._refs: dict[int, Any] = {}
        self._stream_of: dict[int, int] = {}

    def of(self, tensor: torch.Tensor, stream: int = 0, op: int = 0, pinned: bool = False) -> int:
        """The number of the storage of `tensor`; one that is new was made on `stream` by the operator of code `op`."""
        storage = tensor.untyped_storage()
        key = storage_key(storage)
        known = self._ids.get(key)
        return self._new(tensor, storage, key, stream, op, pinned) if known is None else known

    def all_of(self, tensors: list[torch.Tensor], stream: int, op: int) -> list[int]:
        """The numbers of the storages of `tensors`, as `of` gives them one by one."""
        numbers: list[int] = []
        ids = self._ids
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage_key(storage)
            known = ids.get(key)
            numbers.append(self._new(tensor, storage, key, stream, op, False) if known is None else known)
        return numbers

    def _new(self, tensor: torch.Tensor, storage: torch.UntypedStorage, key: int, stream: int, op: int, pinned: bool) -> int:
        kind = device_type(tensor)
        place = PLACE["gpu"] if kind == self._gpu else PLACE["pinned"] if pinned else PLACE["host"]
        nbytes = 0 if kind == "meta" else storage.nbytes()  # a fake tensor's own storage always says meta
        number = self._builder.alloc(place, nbytes, stream, op)
        self._follow(storage, key, number, stream)
        return number

    def number_of(self, tensor: torch.Tensor) -> int | None:
        """The number of the storage of `tensor`, if it has been seen."""
        return self._ids.get(storage_key(tensor.untyped_storage()))

    def pinned(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` is known to lie in pinned host memory."""
        number = self.number_of(tensor)
        return number is not None and self._builder.place_of(number) == PLACE["pinned"]

    def resized(self, storage: torch.UntypedStorage, size: int) -> None:
        """The storage changes its size in place to `size` bytes: what it held dies, what it will hold is new."""
        key = storage_key(storage)
        number = self._ids.get(key)
        if number is None or storage.nbytes() == size or self._builder.nbytes(number) == size:
            return
        place, category = self._builder.place_of(number), self._builder.category_of(number)
        # Only sharding engines resize: what comes and goes so are parameters gathered for use.
        category = CATEGORY["communication"] if category == CATEGORY["temporaries"] else category
        self._refs.pop(key)
        self._died(key, number)
        stream = device.current_stream().id
        self._follow(storage, key, self._builder.alloc(place, size, stream, 0, category), stream)

    def _follow(self, storage: torch.UntypedStorage, key: int, number: int, stream: int) -> None:
        self._ids[key] = number
        self._stream_of[number] = stream
        self._refs[key] = weakref.ref(storage, lambda _: self._died(key, number))

    def _died(self, key: int, number: int) -> None:
        if self._ids.get(key) == number:
            del self._ids[key]
        self._refs.pop(key, None)
        self._builder.free(number, self._stream_of.pop(number, 0))
