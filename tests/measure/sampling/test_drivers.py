"""The two doors that only a GPU opens, as far as that can be seen without one: what they ask of their packages, and how they fail."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pynvml
import pytest

from membound.measure.sensors import nvml
from membound.measure.sensors.cupti import CuptiSession
from membound.measure.sensors.nvml_real import RealNvml, calls


def test_every_call_is_known_to_the_package() -> None:
    assert set(calls(pynvml)) == {*nvml.SYSTEM_CALLS, *nvml.CALLS}


def test_the_sampler_loads_nothing_that_is_heavy() -> None:
    code = "import sys, membound.measure.sampler; print(*sorted({'torch', 'numpy', 'pyarrow', 'pydantic', 'psutil'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_return_codes_are_the_packages() -> None:
    names = ("NOT_SUPPORTED", "NO_PERMISSION", "NOT_FOUND", "DRIVER_NOT_LOADED", "LIBRARY_NOT_FOUND", "FUNCTION_NOT_FOUND", "GPU_IS_LOST", "NO_DATA")
    assert {name: getattr(nvml, name) for name in names} == {name: getattr(pynvml, f"NVML_ERROR_{name}") for name in names}


class Stand:
    """A pynvml with one GPU, whose calls the test lays down."""

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            self.value = value

    class NVMLError_FunctionNotFound(NVMLError):
        pass

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("NVML") or name == "nvmlMemory_v2":
            return getattr(pynvml, name)
        return lambda *arguments, **options: self.call(name, *arguments, **options)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        self.asked.append(name)
        if name == "nvmlDeviceGetTemperatureV":
            raise self.NVMLError_FunctionNotFound(13)
        if name == "nvmlDeviceGetClockInfo":
            raise self.NVMLError(15)
        if name == "nvmlDeviceGetMemoryInfo":
            return SimpleNamespace(total=80, reserved=1, free=39, used=40)
        if name == "nvmlDeviceGetFieldValues":
            value = SimpleNamespace(uiVal=7, ullVal=9)
            return [
                SimpleNamespace(nvmlReturn=0, valueType=1, value=value, timestamp=5),
                SimpleNamespace(nvmlReturn=3, valueType=3, value=value, timestamp=6),
            ]
        return 61


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> tuple[RealNvml, Stand]:
    stand = Stand()
    monkeypatch.setitem(sys.modules, "pynvml", stand)  # type: ignore[arg-type]
    return RealNvml(), stand


def test_a_call_that_an_older_driver_lacks_is_put_in_the_older_way(driver: tuple[RealNvml, Stand]) -> None:
    real, stand = driver
    assert real.ask("temperature", 0) == 61
    assert stand.asked[-1] == "nvmlDeviceGetTemperature"


def test_what_the_driver_refuses_is_its_return_code(driver: tuple[RealNvml, Stand]) -> None:
    real, _ = driver
    with pytest.raises(nvml.Refused) as refused:
        real.ask("clock.core", 0)
    assert refused.value.code == 15


def test_memory_and_fields_come_in_the_drivers_units(driver: tuple[RealNvml, Stand]) -> None:
    real, _ = driver
    assert real.ask("memory", 0) == (80, 1, 39, 40)
    assert real.fields(0, [(186, 0), (82, 0)]) == [(0, 7, 5), (3, 9, 6)]


class Collector:
    """A stand-in for CUPTI's: counts what is done to it."""

    done: ClassVar[list[str]] = []
    refusal: ClassVar[Exception | None] = None
    room: ClassVar[int] = 0

    def __init__(self, device: int) -> None:
        Collector.done = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self._do(name, *arguments)

    def _do(self, name: str, *arguments: Any) -> Any:
        Collector.done.append(name)
        if name == "start" and Collector.refusal is not None:
            raise Collector.refusal
        if name == "decode":
            Collector.room = arguments[0]
            return [SimpleNamespace(start_timestamp=0, end_timestamp=10, metric_values=[3.0, 4.0])]
        return None


class CuptiError(Exception):
    """CUPTI's own."""


@pytest.fixture
def cupti(monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = SimpleNamespace(
        Collector=Collector, TriggerMode=SimpleNamespace(GPU_TIME_INTERVAL=1), HardwareBufferAppendMode=SimpleNamespace(KEEP_LATEST=1)
    )
    package, bindings = ModuleType("cupti"), ModuleType("cuda.bindings")
    package.cupti, package.pm_sampling = SimpleNamespace(cuptiError=CuptiError), sampling  # type: ignore[attr-defined]
    bindings.driver = SimpleNamespace(cuInit=lambda flags: (0,))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupti", package)
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(Collector, "refusal", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")


@pytest.mark.usefixtures("cupti")
def test_a_session_is_started_read_and_ended_once() -> None:
    session = CuptiSession(0, 0.02)
    assert session.samples() == [(0, 10, 3.0, 4.0)]
    assert Collector.room >= 8
    session.close()
    assert Collector.done == ["enable", "configure", "start", "decode", "stop", "disable"]


@pytest.mark.usefixtures("cupti")
@pytest.mark.parametrize(("refusal", "raised"), [(PermissionError(), PermissionError), (ValueError(), ValueError), (CuptiError(), RuntimeError)])
def test_a_session_that_is_refused_lets_the_gpu_go(monkeypatch: pytest.MonkeyPatch, refusal: Exception, raised: type[Exception]) -> None:
    monkeypatch.setattr(Collector, "refusal", refusal)
    with pytest.raises(raised):
        CuptiSession(0, 0.02)
    assert Collector.done == ["enable", "configure", "start", "disable"]
