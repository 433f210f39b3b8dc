"""The packages under study, and which versions of them are installed."""

from __future__ import annotations

from contextlib import suppress
from importlib import metadata
from typing import Final

UNDER_STUDY: Final = ("torch", "transformers", "peft", "bitsandbytes", "deepspeed", "accelerate")


def installed() -> dict[str, str]:
    """Versions of the packages under study that are installed, by name."""
    found = {}
    for package in UNDER_STUDY:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
