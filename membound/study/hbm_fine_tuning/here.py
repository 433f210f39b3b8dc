"""This machine as the study's jobs see it: its GPUs, the clock that their memory runs at, the host's memory and modules. Nothing is changed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

from membound.cost.profile import profile_of
from membound.errors import InputError
from membound.measure import here as at_hand
from membound.measure.doors import open_doors
from membound.measure.sensors.doors import Doors
from membound.measure.sensors.facts import hardware
from membound.measure.sensors.nvml import Nvml, Refused
from membound.measure.source import Source
from membound.spec import catalogue
from membound.spec.job import Job
from membound.spec.machine import Machine

# An idle GPU may lower its memory clock to a small part of what it has under load. Chosen; the measured clock is looked at afterwards.
_IDLE: Final = 0.5


@dataclass(frozen=True)
class Here:
    """What there is to measure on."""

    gpus: tuple[str, ...]
    """The driver's names of the GPUs that a job started here would see."""
    clock: float | None
    """Memory clock under load as far as the driver tells while nothing runs, Hz."""
    host_memory: float
    """B."""
    modules: tuple[float, ...] | None
    """Capacity of each of the host's memory modules, B; None where the firmware does not tell."""
    machine: str | None
    """Name in the catalogue; None where it is in none."""
    source: Source = field(default_factory=Source)

    @classmethod
    def of(cls, source: Source | None = None, name: str | None = None) -> Self:
        """This machine, or the recorded one of `source`; `name` is the catalogue's, where it is not recognised.

        Raises `InputError` where there is no GPU, `UnknownNameError` for a name in no catalogue.
        """
        asked = source or Source()
        doors = open_doors(asked)
        nvml = _nvml(doors)
        try:
            count = 0 if nvml is None else int(_asked(nvml, "count", -1) or 0)
            facts = hardware(doors.files, nvml, tuple(range(count)))
            reading = None if nvml is None or not count else _asked(nvml, "clock.memory")
        finally:
            if nvml is not None:
                nvml.close()
        gpus = tuple(at_hand.gpus() if asked.real else (str(gpu["name"]) for gpu in facts["gpus"]))
        if not gpus:
            raise InputError("--measure", "hbm-fine-tuning", "this machine shows no NVIDIA GPU: leave the option out, and all is predicted")
        host = facts["host"]
        modules = None if host["dimms"] is None else tuple(float(each["nbytes"]) for each in host["dimms"])
        memory = float(host["memory_b"] or at_hand.host()["capacity"])
        return cls(gpus, _clock(reading, facts["gpus"][0]), memory, modules, _catalogued(gpus, name), asked)

    def spec(self, gpus: int) -> Machine | None:
        """The catalogue's entry for this machine, `gpus` of it in use, at the clock that its memory runs at; None where it is in no catalogue."""
        if self.machine is None:
            return None
        found = catalogue.machine(self.machine).with_gpus(gpus)
        if self.clock is None:
            return found
        hbm = found.gpu.hbm.model_copy(update={"clock": self.clock})
        return found.model_copy(update={"gpu": found.gpu.model_copy(update={"hbm": hbm})})

    @property
    def calibrated(self) -> bool:
        """Whether predictions for this machine rest on what was measured on it (`membound calibrate`)."""
        machine = self.spec(1)
        return machine is not None and profile_of(machine.gpu).path is not None


def missing_packages(job: Job) -> tuple[str, ...]:
    """Packages that `job` needs and that are not installed."""
    return tuple(name for name in _packages(job) if not _installed(name))


def _packages(job: Job) -> list[str]:
    recipe = job.recipe
    needed = ["peft"] if recipe.method in {"lora", "qlora"} else []
    needed += ["bitsandbytes"] if recipe.method == "qlora" or "8bit" in recipe.optimizer else []
    needed += ["deepspeed"] if recipe.engine == "deepspeed" else []
    return needed + (["liger-kernel"] if recipe.kernels == "liger" else [])


def _installed(name: str) -> bool:
    with suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(name))
    return False


def _nvml(doors: Doors) -> Nvml | None:
    try:
        return doors.nvml()
    except (Refused, ImportError):
        return None


def _asked(nvml: Nvml, call: str, gpu: int = 0) -> Any:
    try:
        return nvml.ask(call, gpu)
    except Refused:
        return None


def _clock(reading: float | None, facts: Mapping[str, Any]) -> float | None:
    """The memory clock under load, Hz, from a reading in MHz that may be of an idle GPU."""
    highest = max(facts["supported_memory_clocks_mhz"] or (), default=None)
    if reading is None or (highest is not None and reading < _IDLE * highest):
        reading = highest
    return None if reading is None else float(reading) * 1e6


def _catalogued(gpus: tuple[str, ...], name: str | None) -> str | None:
    found = str(at_hand.machine(list(gpus), len(gpus), name)["name"])
    return found if found in catalogue.machines() else None
