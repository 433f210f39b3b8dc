"""The device `ghost`: streams, events and synchronisation that only leave a record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from membound.ghost.private.operators import DummyBackendModule

NAME = "ghost"


class StreamLog(Protocol):
    """Hears what streams and events do, in program order."""

    def recorded(self, stream: int, event: int) -> None: ...

    def waited(self, stream: int, event: int) -> None: ...

    def synchronised(self, stream: int) -> None: ...

    def emptied_cache(self) -> None: ...


class _Silence:
    def recorded(self, stream: int, event: int) -> None: ...

    def waited(self, stream: int, event: int) -> None: ...

    def synchronised(self, stream: int) -> None: ...

    def emptied_cache(self) -> None: ...


class _State:
    """One process holds one ghost; its backend module must be global because PyTorch's registry is."""

    log: StreamLog = _Silence()
    streams = 0
    events = 0
    count = 1


class Event:
    """A point on a stream; what was launched before it is done when it is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _State.events += 1
        self.id = _State.events
        self.event_id = self.id

    def record(self, stream: Stream | None = None) -> None:
        _State.log.recorded((stream or current_stream()).id, self.id)

    def wait(self, stream: Stream | None = None) -> None:
        _State.log.waited((stream or current_stream()).id, self.id)

    def synchronize(self) -> None:
        _State.log.synchronised(-1)

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Event) -> float:
        return 0.0


class Stream:
    """A queue of launches. Number 0 is the default stream."""

    def __init__(self, device: Any = None, priority: int = 0, **kwargs: Any) -> None:
        self.id = _State.streams
        _State.streams += 1
        self.stream_id = self.id
        self.priority = priority
        self.device_index = 0

    @property
    def device(self) -> torch.device:
        """The ghost itself."""
        return torch.device(NAME, 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        event.wait(self)

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.record_event())

    def synchronize(self) -> None:
        _State.log.synchronised(self.id)

    def query(self) -> bool:
        return True

    def __enter__(self) -> Stream:
        _stack.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        _stack.pop()


_default = Stream()
_stack = [_default]


def current_stream() -> Stream:
    """The stream on which the next operation is launched."""
    return _stack[-1]


_Stream = Stream  # the class attribute below hides the name


class Backend(DummyBackendModule):
    """`torch.ghost`: what PyTorch and its engines ask of a device module."""

    Stream: type = Stream  # as torch.cuda has them
    Event: type = Event

    def current_stream(self, device: Any = None) -> _Stream:
        return current_stream()

    def default_stream(self, device: Any = None) -> _Stream:
        return _default

    def set_stream(self, stream: _Stream) -> None:
        _stack[-1] = stream

    @contextmanager
    def stream(self, stream: _Stream | None) -> Iterator[None]:
        if stream is None:
            yield
            return
        with stream:
            yield

    @contextmanager
    def device(self, device: Any = None) -> Iterator[None]:
        yield

    def device_count(self) -> int:
        return _State.count

    def set_device(self, device: Any) -> None: ...

    def get_device_name(self, device: Any = None) -> str:
        return NAME

    def synchronize(self, device: Any = None) -> None:
        _State.log.synchronised(-1)

    def empty_cache(self) -> None:
        _State.log.emptied_cache()

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return True

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16, torch.float32]

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.empty(16, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None: ...

    def manual_seed(self, seed: int) -> None: ...

    def memory_allocated(self, device: Any = None) -> int:
        return 0

    def max_memory_allocated(self, device: Any = None) -> int:
        return 0

    def reset_peak_memory_stats(self, device: Any = None) -> None: ...


def hear(log: StreamLog | None, devices: int = 1) -> None:
    """From now on `log` hears of streams and events; `devices` is what a program sees when it counts GPUs."""
    _State.log = log or _Silence()
    _State.count = devices
