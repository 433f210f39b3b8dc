"""The real driver's door, over NVML's bindings with every function replaced: what is asked, what is set, and how errors read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from membound.errors import InputError
from membound.measure.clocks.calls import Answer, Call, applications, holding_core, locked
from membound.measure.clocks.consent import Consent, grant
from membound.measure.clocks.driver import Driver, Gpu, Reading, SwitchType
from membound.measure.clocks.nvml import NvmlDriver
from membound.measure.clocks.opening import open_driver
from membound.measure.clocks.reasons import NAMES, SPOILING, names
from membound.measure.clocks.refusals import GpuLostError, NotSwitchableError
from membound.measure.clocks.simulated import SimulatedDriver

nvml: Any = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")

UUID = "GPU-a"
HANDLE = object()
MEMORY, CORE = 2_619_000_000, 1_980_000_000


def field(value: int, status: int = 0) -> Any:
    """One answer of nvmlDeviceGetFieldValues."""
    return SimpleNamespace(nvmlReturn=status, value=SimpleNamespace(uiVal=value))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """NVML's functions, none of which reaches a driver: answers by name, to be changed; those that set are noted under `set`."""
    answers: dict[str, Any] = {
        "set": [],
        "nvmlInit": None,
        "nvmlDeviceGetHandleByUUID": HANDLE,
        "nvmlDeviceGetHandleByIndex": HANDLE,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetUUID": UUID,
        "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
        "nvmlDeviceGetMigMode": [0, 0],
        "nvmlDeviceGetFieldValues": [field(2), field(250)],
        "nvmlDeviceGetSupportedMemoryClocks": [1593, 2619],
        "nvmlDeviceGetSupportedGraphicsClocks": [1980, 1965],
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=7), SimpleNamespace(pid=5)],
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0x4,
    }
    clocks = {nvml.NVML_CLOCK_MEM: 2619, nvml.NVML_CLOCK_GRAPHICS: 1980, nvml.NVML_CLOCK_SM: 1980}

    def answering(name: str) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            if name.startswith(("nvmlDeviceSet", "nvmlDeviceReset")):
                answers["set"].append((name, *arguments))
            found = answers.get(name)
            if name in {"nvmlDeviceGetClockInfo", "nvmlDeviceGetApplicationsClock"} and name not in answers:
                found = clocks[arguments[1]]
            if isinstance(found, int) and name in answers.get("errors", ()):
                raise nvml.NVMLError(found)
            return found

        return answer

    for name in [name for name in vars(nvml) if name.startswith("nvml") and callable(vars(nvml)[name])]:
        monkeypatch.setattr(nvml, name, answering(name))
    return answers


def failing(asked: dict[str, Any], name: str, status: int) -> None:
    """Let the function `name` fail with NVML's `status`."""
    asked[name] = status
    asked.setdefault("errors", set()).add(name)


class TestReading:
    def test_all_that_is_asked(self, asked: dict[str, Any]) -> None:
        driver = NvmlDriver()
        assert driver.gpus() == (Gpu(UUID, "NVIDIA H100 80GB HBM3"),)
        assert (driver.switching(UUID).type, driver.switching(UUID).interval) == (SwitchType.RUNTIME, 0.25)
        assert driver.memory_clocks(UUID) == (MEMORY, 1_593_000_000)
        assert driver.core_clocks(UUID, MEMORY) == (CORE, 1_965_000_000)
        assert driver.applications(UUID) == (MEMORY, CORE)
        assert driver.processes(UUID) == (5, 7)
        assert driver.read(UUID) == Reading(MEMORY, CORE, 0x4)
        assert asked["set"] == []

    def test_fields_that_an_older_driver_does_not_know(self, asked: dict[str, Any]) -> None:
        asked["nvmlDeviceGetFieldValues"] = [field(0, nvml.NVML_ERROR_NOT_SUPPORTED), field(0, nvml.NVML_ERROR_NOT_SUPPORTED)]
        switching = NvmlDriver().switching(UUID)
        assert (switching.type, switching.interval) == (SwitchType.UNKNOWN, 0.0)
        assert "Not Supported" in switching.why

    def test_a_type_that_is_new_is_unknown(self, asked: dict[str, Any]) -> None:
        asked["nvmlDeviceGetFieldValues"] = [field(7), field(0)]
        assert NvmlDriver().switching(UUID).type is SwitchType.UNKNOWN

    @pytest.mark.parametrize("status", [nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_DEPRECATED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND])
    def test_applications_clocks_that_are_no_more(self, asked: dict[str, Any], status: int) -> None:
        failing(asked, "nvmlDeviceGetApplicationsClock", status)
        assert NvmlDriver().applications(UUID) is None

    def test_processes_that_cannot_be_listed_are_not_none(self, asked: dict[str, Any]) -> None:
        failing(asked, "nvmlDeviceGetComputeRunningProcesses", nvml.NVML_ERROR_NO_PERMISSION)
        with pytest.raises(NotSwitchableError, match="nvmlDeviceGetComputeRunningProcesses: Insufficient Permissions"):
            NvmlDriver().processes(UUID)

    def test_a_split_gpu_says_so(self, asked: dict[str, Any]) -> None:
        asked["nvmlDeviceGetMigMode"] = [1, 1]
        assert NvmlDriver().gpus()[0].split

    @pytest.mark.parametrize("name", ["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetClockInfo"])
    def test_a_lost_gpu(self, asked: dict[str, Any], name: str) -> None:
        driver = NvmlDriver()
        failing(asked, name, nvml.NVML_ERROR_GPU_IS_LOST)
        with pytest.raises(GpuLostError, match=UUID):
            driver.read(UUID)

    def test_no_driver_is_one_line(self, asked: dict[str, Any]) -> None:
        failing(asked, "nvmlInit", nvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        with pytest.raises(NotSwitchableError, match=r"no NVIDIA driver answers here .*a sweep can be predicted"):
            NvmlDriver()

    def test_no_bindings_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        with pytest.raises(NotSwitchableError, match="nvidia-ml-py"):
            NvmlDriver()


class TestSetting:
    @pytest.mark.parametrize(
        ("call", "made"),
        [
            (Call("lock_memory", UUID, (MEMORY,)), ("nvmlDeviceSetMemoryLockedClocks", HANDLE, 2619, 2619)),
            (Call("reset_memory", UUID), ("nvmlDeviceResetMemoryLockedClocks", HANDLE)),
            (Call("lock_core", UUID, (CORE,)), ("nvmlDeviceSetGpuLockedClocks", HANDLE, 1980, 1980)),
            (Call("reset_core", UUID), ("nvmlDeviceResetGpuLockedClocks", HANDLE)),
            (Call("set_applications", UUID, (MEMORY, CORE)), ("nvmlDeviceSetApplicationsClocks", HANDLE, 2619, 1980)),
            (Call("reset_applications", UUID), ("nvmlDeviceResetApplicationsClocks", HANDLE)),
        ],
        ids=lambda value: value.name if isinstance(value, Call) else "",
    )
    def test_each_call_is_what_it_prints(self, asked: dict[str, Any], consent: Consent, call: Call, made: tuple[Any, ...]) -> None:
        assert grant(NvmlDriver(), consent).perform(call) == Answer(0)
        assert asked["set"] == [made]
        assert str(call) == f"{made[0]}({', '.join([UUID, *(f'{clock} MHz' for clock in made[2:])])})"
        assert Call.of(call.document()) == call

    def test_a_denial_is_an_answer(self, asked: dict[str, Any], consent: Consent) -> None:
        failing(asked, "nvmlDeviceSetMemoryLockedClocks", nvml.NVML_ERROR_NO_PERMISSION)
        answer = grant(NvmlDriver(), consent).perform(Call("lock_memory", UUID, (MEMORY,)))
        assert (answer.forbidden, answer.refusal) == (True, "Insufficient Permissions")

    def test_a_lost_gpu_is_an_error(self, asked: dict[str, Any], consent: Consent) -> None:
        failing(asked, "nvmlDeviceSetMemoryLockedClocks", nvml.NVML_ERROR_GPU_IS_LOST)
        with pytest.raises(GpuLostError):
            grant(NvmlDriver(), consent).perform(Call("lock_memory", UUID, (MEMORY,)))


class TestAnswers:
    @pytest.mark.parametrize(
        "text",
        [
            "This option is not supported. Please use --lock-memory-clocks-deferred instead. All done.",
            "The current user does not have permission to change clocks for GPU 00000000:01:00.0.",
            "The requested functionality has been deprecated.",
        ],
    )
    def test_words_count_where_the_status_is_good(self, text: str) -> None:
        assert Answer(0, text).refusal == text

    def test_a_status_counts_without_words(self) -> None:
        assert Answer(3).refusal == "status 3"
        assert Answer(0, "All done.").refusal is None

    @pytest.mark.parametrize("way", [locked(UUID, MEMORY), applications(UUID, MEMORY, CORE, (1, 2)), holding_core(locked(UUID, MEMORY), UUID, CORE)])
    def test_each_way_undoes_what_it_does(self, way: Any) -> None:
        kinds = [call.name.partition("_")[2] for call in way.do]
        assert [call.name.partition("_")[2] for call in way.undo] == kinds[::-1]


class TestReasons:
    def test_their_bits_are_nvmls(self) -> None:
        bits = [value for name, value in vars(nvml).items() if name.startswith("nvmlClocksThrottleReason") and isinstance(value, int)]
        assert set(NAMES) == {bit for bit in bits if bit and bit & (bit - 1) == 0}
        spoiling = {"HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown"}
        assert sum(vars(nvml)[f"nvmlClocksThrottleReason{name}"] for name in spoiling) == SPOILING

    def test_all_are_named(self) -> None:
        assert names(0) == ()
        assert names(0x44) == ("software power cap", "hardware thermal slowdown")
        assert names(0x1000) == ("reason 0x1000",)


def test_both_drivers_answer_everything() -> None:
    for kind in (NvmlDriver, SimulatedDriver):
        assert issubclass(kind, Driver)
        assert not kind.__abstractmethods__


@pytest.mark.parametrize("address", ["", "cuda", "simulated:/nowhere"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(InputError, match="driver"):
        open_driver(address)
