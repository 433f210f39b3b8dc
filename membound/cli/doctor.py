"""`membound doctor`: what can be predicted and measured here."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from membound import __version__, units
from membound.cli import output
from membound.cli.options import AsJson

# Package, and what cannot be predicted without it.
_PACKAGES = {
    "torch": "anything",
    "transformers": "anything",
    "peft": "method lora and qlora (extra: lora)",
    "bitsandbytes": "method qlora and 8-bit optimizers (extra: qlora)",
    "deepspeed": "engine deepspeed (extra: deepspeed)",
    "accelerate": "engine deepspeed (extra: deepspeed)",
}
_Recorded = Annotated[str | None, typer.Option("--recorded", metavar="NAME", help="Examine a recorded machine's sensors instead of this one's.")]


def doctor(as_json: AsJson = False, recorded: _Recorded = None) -> None:
    """Say what can be predicted and measured here: packages, traces, and each sensor with its tier, its period, or its cure."""
    from membound.cli import doctor_sensors
    from membound.measure.examine import examine
    from membound.measure.source import REAL, Source
    from membound.trace import cache

    versions = {package: _version(package) for package in _PACKAGES}
    kept = cache.TraceCache(cache.default_folder())
    entries, nbytes = kept.usage()
    python = ".".join(str(part) for part in sys.version_info[:3])
    found = examine(Source(recorded or REAL))
    if as_json:
        held = {"folder": str(kept.folder), "entries": entries, "bytes": nbytes, "cap_bytes": int(kept.cap)}
        about = {"schema": 1, "membound": __version__, "python": python, "packages": versions, "cache": held}
        output.write_json({**about, "machine": recorded or REAL, "sensors": found})
        return
    lines = [f"membound {__version__}, Python {python}", "packages"]
    for package, version in versions.items():
        lines.append(f"  {package:14}{version or f'not installed: without it, no {_PACKAGES[package]}'}")
    lines += ["traces", f"  {kept.folder}: {entries} kept, {units.show(nbytes, 'B')} of at most {units.show(kept.cap, 'B')}"]
    lines += doctor_sensors.lines(found)
    output.write("\n".join(lines) + "\n")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
