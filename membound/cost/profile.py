"""What was measured of a GPU and its host that no data sheet says: how near each family of kernels comes to its bound, and what a launch costs.

A profile is a small YAML file. Those that ship name their measurement; `membound calibrate` writes one for the GPU at hand, which then goes
before the shipped ones. A GPU without a profile gets that of its nearest relative, and says so.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from membound import units
from membound.errors import InputError, RecordError
from membound.spec.machine import Gpu

SCHEMA: Final = 1


@dataclass(frozen=True)
class Rate:
    """How a family of kernels runs: the share of its bound that it reaches when it is large, and the time that it takes however small."""

    efficiency: float
    """Share of the HBM's bandwidth, or of the peak rate, 1."""
    elements: float
    """Elements per second that its threads get through at the measured core clock, wherever the data lie; infinite where they load wide."""
    fixed: float
    """s; start, ramp and tail of a kernel that follows another at once."""
    band: float
    """Relative half-width in which single kernels scatter, 1."""


@dataclass(frozen=True)
class Profile:
    """Measured rates of one GPU and the host that it was measured on."""

    gpu: str
    source: str
    families: Mapping[str, Rate]
    l2_bandwidth: float
    """B/s that kernels get from the L2, at `clock`."""
    clock: float
    """Core clock at which arithmetic and L2 were measured, Hz."""
    sms: int
    """Streaming multiprocessors of the measured GPU."""
    launch: Mapping[str, float]
    """Host seconds by kind of call: see `membound.cost.launch`."""
    borrowed: bool = False
    """Whether this is another GPU's profile."""

    def rate(self, family: str) -> Rate:
        """The rate of `family`. Raises `RecordError`."""
        if family not in self.families:
            raise RecordError(f"the profile of {self.gpu} has no family {family}: calibrate again")
        return self.families[family]


def folder() -> Path:
    """Where a user's own profiles lie: $MEMBOUND_PROFILES, else the user's configuration folder."""
    if own := os.environ.get("MEMBOUND_PROFILES"):
        return Path(own)
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "membound" / "profiles"


def profile_of(gpu: Gpu) -> Profile:
    """The user's own profile of `gpu`, else the shipped one, else that of its nearest relative."""
    found = _known()
    if gpu.name in found:
        return found[gpu.name]
    relative = _RELATIVES.get(gpu.name) or _BY_ARCHITECTURE.get(gpu.architecture, "h100-sxm")
    return _borrowed(found[relative])


# Who stands in for whom: the same die or, failing that, the same generation's.
_RELATIVES: Final = {"h200": "h100-sxm", "gh200": "h100-sxm", "h100-96gb-hbm2e": "h100-sxm", "h100-pcie": "h100-sxm"}
_BY_ARCHITECTURE: Final[dict[str, str]] = {"hopper": "h100-sxm"}


def _borrowed(profile: Profile) -> Profile:
    return replace(profile, borrowed=True)


def _known() -> dict[str, Profile]:
    own = folder()
    stamp = tuple(sorted((file.name, file.stat().st_mtime_ns) for file in own.glob("*.yaml"))) if own.is_dir() else ()
    return _read_all(str(own), stamp)


@functools.lru_cache(maxsize=8)
def _read_all(own: str, stamp: tuple[tuple[str, int], ...]) -> dict[str, Profile]:
    shipped = resources.files("membound.cost") / "data" / "profiles"
    found = {}
    for item in sorted(shipped.iterdir(), key=lambda item: item.name):
        if item.name.endswith(".yaml"):
            profile = read(item.read_text(), item.name)
            found[profile.gpu] = profile
    for name, _ in stamp:
        profile = read((Path(own) / name).read_text(), str(Path(own) / name))
        found[profile.gpu] = profile
    return found


def read(text: str, name: str) -> Profile:
    """The profile that `text` holds. Raises `RecordError` where it is none."""
    try:
        data: dict[str, Any] = yaml.safe_load(text)
        if data.get("schema") != SCHEMA:
            raise RecordError(f"{name}: profile schema {data.get('schema')}, this membound reads {SCHEMA}: calibrate again")
        families = {
            family: Rate(
                float(rate["efficiency"]),
                float(rate.get("elements", math.inf)),
                units.parse(rate["fixed"], "s", f"{name}: {family}.fixed"),
                float(rate["band"]),
            )
            for family, rate in data["families"].items()
        }
        launch = {kind: units.parse(value, "s", f"{name}: launch.{kind}") for kind, value in data["launch"].items()}
        return Profile(
            str(data["gpu"]), str(data["source"]), families, units.parse(data["l2_bandwidth"], "B/s", f"{name}: l2_bandwidth"),
            units.parse(data["clock"], "Hz", f"{name}: clock"), int(data["sms"]), launch,
        )  # fmt: skip
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, InputError) as error:
        raise RecordError(f"{name}: not a readable profile ({error})") from None
