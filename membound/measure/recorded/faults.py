"""A driver that fails as drivers do: wraps another, and refuses, lies, repeats itself or takes its time."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, final

from membound.measure.sensors.nvml import GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, FieldAnswer, MetricAnswer, Nvml, Refused
from membound.measure.source import Fault

# Kinds whose answers are true, if they come.
_TAKING: Final = {"slow", "busy", "crash"}
_CODES: Final = {"lost": GPU_IS_LOST, "no_permission": NO_PERMISSION, "not_supported": NOT_SUPPORTED}
# What boards without the sensor were seen to answer: 2^63 - 1 for the memory's temperature (NVIDIA/dcgm-exporter#512), all bits set elsewhere.
_SENTINELS: Final = {"field.82": 2**63 - 1}
_ALL_BITS: Final = 2**32 - 1
# Exit status of a sampler that a fault has ended.
_CRASHED: Final = 70
# Work for a core: hashing takes some 0.1 ms, and lets other threads run, as a driver's call does (hashlib's documentation: from 2047 bytes on).
_WORK: Final = bytes(1 << 16)


@final
class FaultyNvml(Nvml):
    """`inner` with `faults`. Their times are s since `opened`. Calls are named as in `membound.measure.sensors.nvml`; a field is `field.ID`
    or, with its scope, `field.ID.SCOPE`; GPM is `gpm`."""

    def __init__(self, inner: Nvml, faults: Sequence[Fault], opened: float) -> None:
        self._inner = inner
        self._faults = faults
        self._opened = opened
        self._stuck: dict[tuple[Fault, str, int], Any] = {}

    def ask(self, call: str, gpu: int = -1) -> Any:
        fault = self._find((call,), gpu)
        if fault is None:
            return self._inner.ask(call, gpu)
        if fault.kind == "stuck":
            return self._repeat(fault, call, gpu, lambda: self._inner.ask(call, gpu))
        if fault.kind == "sentinel":
            true = self._inner.ask(call, gpu)
            return [_ALL_BITS] * len(true) if isinstance(true, list | tuple) else _ALL_BITS
        self._strike(fault)
        return self._inner.ask(call, gpu)

    def fields(self, gpu: int, wanted: Sequence[tuple[int, int]]) -> list[FieldAnswer]:
        faults = [self._find((f"field.{field}.{scope}", f"field.{field}"), gpu) for field, scope in wanted]
        for fault in {each for each in faults if each is not None and each.kind in _TAKING}:
            self._strike(fault)
        true = self._inner.fields(gpu, wanted)
        return [self._field(fault, gpu, each, answer) for fault, each, answer in zip(faults, wanted, true, strict=True)]

    def _field(self, fault: Fault | None, gpu: int, wanted: tuple[int, int], answer: FieldAnswer) -> FieldAnswer:
        name = f"field.{wanted[0]}"
        if fault is None or fault.kind in _TAKING:
            return answer
        if fault.kind == "stuck":
            found: FieldAnswer = self._repeat(fault, f"{name}.{wanted[1]}", gpu, lambda: answer)
            return found
        if fault.kind == "sentinel":
            return 0, _SENTINELS.get(name, _ALL_BITS), answer[2]
        return _CODES[fault.kind], 0, answer[2]

    def gpm_take(self, gpu: int, into: Any = None) -> Any:
        fault = self._find(("gpm",), gpu)
        if fault is not None:
            self._strike(fault)
        return self._inner.gpm_take(gpu, into)

    def gpm_between(self, first: Any, second: Any, metrics: Sequence[int]) -> list[MetricAnswer]:
        return self._inner.gpm_between(first, second, metrics)

    def close(self) -> None:
        self._inner.close()

    def _find(self, calls: tuple[str, ...], gpu: int) -> Fault | None:
        now = time.monotonic() - self._opened
        for fault in self._faults:
            if fault.call in {*calls, "*"} and fault.gpu in {None, gpu} and gpu >= 0 and fault.begin <= now < fault.end:
                return fault
        return None

    def _repeat(self, fault: Fault, call: str, gpu: int, ask: Callable[[], Any]) -> Any:
        place = (fault, call, gpu)
        if place not in self._stuck:
            self._stuck[place] = ask()
        return self._stuck[place]

    @staticmethod
    def _strike(fault: Fault) -> None:
        if fault.kind in _CODES:
            raise Refused(_CODES[fault.kind])
        if fault.kind == "slow":
            time.sleep(fault.cost)
        if fault.kind == "busy":
            _spend(fault.cost)
        if fault.kind == "crash":
            os._exit(_CRASHED)


def _spend(seconds: float) -> None:
    """Keep the core busy until this thread has had `seconds` of it."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(_WORK).digest()
