"""The catalogue: models and machines as data files, each value with its source. A file is read only when it is asked for, and once: a sweep asks
for the same machine at each of its points."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from membound.errors import InputError, UnknownNameError
from membound.spec import fields
from membound.spec.hf_config import read_config
from membound.spec.machine import Machine

try:
    from yaml import CSafeLoader as _Loader
except ImportError:
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

# Blocks of a machine file that may name a file of their own.
_PARTS = {"gpu": "gpus", "host": "hosts"}


@dataclass(frozen=True)
class ModelEntry:
    """A model's shape: `config` is a Hugging Face configuration, or ours; `parameters` is its exact count, None where nobody has counted.

    `reference` is how its public reference recipe trains it: `data` and fields of a recipe, with their `source`; None where none is known.
    """

    name: str
    config: dict[str, Any]
    parameters: int | None
    source: str
    reference: dict[str, Any] | None = None


def models() -> list[str]:
    """Names of all models, sorted."""
    return list(_names("models", ".json"))


def machines() -> list[str]:
    """Names of all machines, sorted; a lone GPU is a machine of one."""
    return list(_names("machines", ".yaml"))


def model(name: str) -> ModelEntry:
    """The model of that name. Raises `UnknownNameError`."""
    data = json.loads(_text("models", name, ".json", "model"))
    return ModelEntry(data["name"], data["config"], data["parameters"], data["source"], data.get("reference"))


@functools.cache
def machine(name: str) -> Machine:
    """The machine of that name. Raises `UnknownNameError`."""
    data = yaml.load(_text("machines", name, ".yaml", "machine"), Loader=_Loader)
    for part, folder in _PARTS.items():
        data[part] = yaml.load(_text(folder, data[part], ".yaml", f"machine.{part}"), Loader=_Loader)
    return fields.read(Machine, data, "machine")


def model_entry(text: str, allow_code: bool = False) -> ModelEntry:
    """The model that `text` names: a catalogue name, or else the path of a config.json or of a folder that holds one.

    Raises `UnknownNameError`, or `InputError` for a file that is no usable configuration; one that asks for remote code
    (`auto_map`) is refused unless `allow_code`.
    """
    if text in models():
        return model(text)
    path = _config_path(text)
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return ModelEntry(name, read_config(path, allow_code), None, f"the file {path}")


def _config_path(text: str) -> Path:
    path = Path(text).expanduser() if text.startswith("~/") else Path(text)
    try:
        folder, found = path.is_dir(), path.exists()
    # A null character or an endless name is no path.
    except (OSError, ValueError):
        raise InputError("model", text[:200], "write a catalogue name, or the path of a config.json or of a model folder") from None
    if folder:
        return path / "config.json"
    if found or "/" in text or text.endswith(".json"):
        return path
    raise UnknownNameError("model", text, models())


def _folder(kind: str) -> Traversable:
    return resources.files("membound.spec") / "data" / kind


@functools.cache
def _names(kind: str, suffix: str) -> tuple[str, ...]:
    return tuple(sorted(item.name.removesuffix(suffix) for item in _folder(kind).iterdir() if item.name.endswith(suffix)))


@functools.cache
def _text(kind: str, name: str, suffix: str, field: str) -> str:
    # Only listed names are opened, so that no name can lead out of the folder.
    known = _names(kind, suffix)
    if name not in known:
        raise UnknownNameError(field, name, list(known))
    return (_folder(kind) / f"{name}{suffix}").read_text(encoding="utf-8")
