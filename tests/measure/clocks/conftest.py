"""A simulated machine of two GPUs whose driver switches at run time, a state folder, and a session over both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from membound.measure.clocks import simulated_board as board
from membound.measure.clocks.consent import Consent
from membound.measure.clocks.session import Session, Timing
from membound.measure.clocks.simulated import SimulatedDriver
from membound.measure.clocks.verifying import Load

GPUS = ("GPU-a", "GPU-b")
QUICK = Timing(settle=0.0, patience=0.3, period=0.01, look=0.001)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Folder of the simulated machine."""
    folder = tmp_path / "machine"
    board.create(folder, dict.fromkeys(GPUS, "switchable"))
    return folder


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of locks and journals, which $MEMBOUND_STATE names."""
    folder = tmp_path / "state"
    monkeypatch.setenv("MEMBOUND_STATE", str(folder))
    return folder


@pytest.fixture
def driver(machine: Path) -> SimulatedDriver:
    """The machine's driver."""
    return SimulatedDriver(machine)


@pytest.fixture
def load(machine: Path) -> Load:
    """Loads GPUs of the machine."""

    @contextmanager
    def loaded(uuids: Sequence[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for uuid in uuids:
                stack.enter_context(board.loaded(machine, uuid))
            yield

    return loaded


@pytest.fixture
def consent() -> Consent:
    """As the command line makes it."""
    return Consent.from_options(True, "machine.gpu.hbm.clock=1593MHz")


@pytest.fixture
def session(driver: SimulatedDriver, load: Load, consent: Consent, state: Path) -> Callable[..., Session]:
    """Makes sessions over both GPUs, or those that are given."""

    def make(*uuids: str, load: Load = load, **more: Any) -> Session:
        return Session(driver, uuids or GPUS, load, consent, state, more.get("timing", QUICK))

    return make


@pytest.fixture
def clocks(machine: Path) -> Callable[[], dict[str, Any]]:
    """What is set on the GPUs now: locked memory and core clocks and applications clocks, MHz; all None where nothing is."""

    def look() -> dict[str, Any]:
        kinds = ("locked_memory_mhz", "locked_core_mhz", "applications_mhz")
        return {uuid: tuple(gpu[kind] for kind in kinds) for uuid, gpu in board.read(machine)["gpus"].items()}

    return look
