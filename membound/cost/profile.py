"""What was measured of a GPU and its host that no data sheet says: how near each family of kernels comes to its bound, and what a launch costs.

A profile is a small YAML file. Those that ship name their measurement; `membound calibrate` writes one for the GPU at hand, which then goes
before the shipped ones. A GPU without a profile gets that of its nearest relative, and says so.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from membound import units
from membound.errors import InputError, RecordError
from membound.spec.machine import Gpu

SCHEMA: Final = 1
FACTORS: Final = ("matmul", "matmul_fp32", "attention_forward", "attention_backward", "pcie", "collectives")
"""Laws whose constants are not in a profile but beside them: products with tensor cores and without, fused attention, copies, NCCL."""


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
    factors: Mapping[str, float] = field(default_factory=dict)
    """Measured time over that of a law with constants of its own, by law; 1 where none was measured. Names: `FACTORS`."""
    copy_latency: float | None = None
    """s; the smallest copy between host and GPU; None where it was not measured."""
    unmeasured: tuple[str, ...] = ()
    """Families whose rates are those of the profile that this one was fitted from, for want of measurements."""
    path: str | None = None
    """The user's own file; None for those that ship."""

    def factor(self, law: str) -> float:
        """What the law `law` of `FACTORS` multiplies its times by."""
        return self.factors.get(law, 1.0)

    def note(self) -> str:
        """What the basis of a prediction adds where this is not the GPU's own shipped profile; else empty."""
        calibrated = f"calibrated here: {self.path}" if self.path else ""
        if self.borrowed:
            return f"; efficiencies of {self.gpu}{f' ({calibrated})' if calibrated else ''}, for want of its own"
        return f"; {calibrated}" if calibrated else ""

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
    return _nearest(gpu, _known())


def shipped(gpu: Gpu) -> Profile:
    """The shipped profile of `gpu`, else that of its nearest relative, whatever the user has measured."""
    return _nearest(gpu, _read_all("", ()))


def _nearest(gpu: Gpu, found: Mapping[str, Profile]) -> Profile:
    if gpu.name in found:
        return found[gpu.name]
    relative = _RELATIVES.get(gpu.name) or _BY_ARCHITECTURE.get(gpu.architecture, "h100-sxm")
    return _borrowed(found[relative])


# Who stands in for whom: the same die or, failing that, the same generation's.
_RELATIVES: Final = {"h200": "h100-sxm", "gh200": "h100-sxm", "h100-96gb-hbm2e": "h100-sxm", "h100-pcie": "h100-sxm"}
_BY_ARCHITECTURE: Final[dict[str, str]] = {"hopper": "h100-sxm"}


def _borrowed(profile: Profile) -> Profile:
    # What one card's products, attention and links take beside their laws says nothing of another's.
    return replace(profile, borrowed=True, factors={}, copy_latency=None)


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
        profile = read(_text(Path(own) / name), str(Path(own) / name))
        found[profile.gpu] = replace(_completed(profile, next(iter(found.values()))), path=str(Path(own) / name))
    return found


def _completed(own: Profile, shipped: Profile) -> Profile:
    """A user's profile with what an older membound did not measure taken from a shipped one, and named."""
    lacking = [name for name in shipped.families if name not in own.families] + [f"launch.{k}" for k in shipped.launch if k not in own.launch]
    families, launch = {**shipped.families, **own.families}, {**shipped.launch, **own.launch}
    return replace(own, families=families, launch=launch, unmeasured=(*own.unmeasured, *lacking))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecordError(f"{file}: not a readable profile ({error}): delete it and calibrate again") from None


def read(text: str, name: str) -> Profile:
    """The profile that `text` holds. Raises `RecordError` where it is none."""
    try:
        data: dict[str, Any] = yaml.safe_load(text)
        if data.get("schema") != SCHEMA:
            raise RecordError(f"{name}: profile schema {data.get('schema')}, this membound reads {SCHEMA}: delete it and calibrate again")
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
            units.parse(data["clock"], "Hz", f"{name}: clock"), int(data["sms"]), launch, False, _factors(data.get("factors", {}), name),
            _latency(data.get("copy_latency"), name), tuple(map(str, data.get("unmeasured", ()))),
        )  # fmt: skip
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, InputError) as error:
        raise RecordError(f"{name}: not a readable profile ({error}): delete it and calibrate again") from None


def _factors(data: Mapping[str, Any], name: str) -> dict[str, float]:
    unknown = sorted(set(data) - set(FACTORS))
    if unknown:
        raise RecordError(f"{name}: factors.{unknown[0]}: known: {', '.join(FACTORS)}")
    return {law: units.parse(value, "1", f"{name}: factors.{law}") for law, value in data.items()}


def _latency(value: Any, name: str) -> float | None:
    return None if value is None else units.parse(value, "s", f"{name}: copy_latency")
