"""What does not change while a job runs: GPUs, driver, processors, memory and its DIMMs. For the manifest, and for `membound doctor`."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Final

from membound.measure.sensors.dimms import dimms
from membound.measure.sensors.files import Files
from membound.measure.sensors.host_memory import meminfo
from membound.measure.sensors.nvml import Nvml, Refused

# Plain facts of a GPU, by key in the manifest: the call.
_FACTS: Final = {
    "name": "name",
    "uuid": "uuid",
    "pci_bus": "pci_bus",
    "compute_capability": "compute_capability",
    "power_limit_mw": "power_limit",
    "supported_memory_clocks_mhz": "supported_memory_clocks",
    "memory_bus_bit": "memory_bus",
}
# How memory clocks may be switched, and the least time between two switches (nvidia-ml-py 13.615.71, NVML_FI_DEV_MCLK_*).
_CLOCK_FIELDS: Final = {"memory_clock_switch_type": (298, 0), "memory_clock_switch_interval_ms": (299, 0)}


def hardware(files: Files, nvml: Nvml | None, gpus: tuple[int, ...]) -> dict[str, Any]:
    """The machine as it describes itself. What it does not tell is null."""
    system = {name: None if nvml is None else _asked(nvml, name) for name in ("driver", "nvml")}
    return {**system, "gpus": [_gpu(nvml, gpu) for gpu in gpus if nvml is not None], "host": _host(files)}


def _gpu(nvml: Nvml, gpu: int) -> dict[str, Any]:
    found: dict[str, Any] = {"gpu": gpu, **{key: _asked(nvml, call, gpu) for key, call in _FACTS.items()}}
    memory = _asked(nvml, "memory", gpu)
    found["memory_total_b"], found["memory_reserved_b"] = (None, None) if memory is None else memory[:2]
    for key, wanted in _CLOCK_FIELDS.items():
        found[key] = None
        with contextlib.suppress(Refused):
            code, value, _ = nvml.fields(gpu, [wanted])[0]
            found[key] = value if code == 0 else None
    return found


def _asked(nvml: Nvml, call: str, gpu: int = -1) -> Any:
    try:
        return nvml.ask(call, gpu)
    except Refused:
        return None


def _host(files: Files) -> dict[str, Any]:
    found: dict[str, Any] = {"processor": None, "cores": None, "sockets": None, "memory_b": None, "dimms": None, "dimms_missing": None}
    with contextlib.suppress(OSError):
        found.update(_processors(files))
    with contextlib.suppress(OSError):
        found["memory_b"] = meminfo(files).get("MemTotal")
    try:
        found["dimms"] = [dataclasses.asdict(dimm) for dimm in dimms(files)]
    except PermissionError:
        found["dimms_missing"] = "the firmware's table is root's alone: sudo chmod o+r /sys/firmware/dmi/tables/DMI"
    except FileNotFoundError:
        found["dimms_missing"] = "the firmware shows no table of modules: a virtual machine, as a rule"
    except (OSError, ValueError) as error:
        found["dimms_missing"] = f"the firmware's table of modules cannot be read ({error})"
    return found


def _processors(files: Files) -> dict[str, Any]:
    lines = [line.partition(":") for line in files.text("/proc/cpuinfo").split("\n")]
    rows = [(name.strip(), value.strip()) for name, _, value in lines]
    sockets = {value for name, value in rows if name == "physical id"}
    return {
        "processor": next((value for name, value in rows if name == "model name"), None),
        "cores": sum(name == "processor" for name, _ in rows),
        "sockets": len(sockets) or None,
    }
