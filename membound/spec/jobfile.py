"""Job files: YAML from a path or standard input, with `KEY=VALUE` changes from the command line. Whatever is wrong becomes one `InputError`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from membound.errors import InputError
from membound.spec import catalogue, fields, safe_yaml
from membound.spec.job import Job, deepspeed_json
from membound.spec.machine import Machine

DEFAULT_MACHINE = "hgx-h100"

# The report's own job file has some 500 bytes; a list of every layer's name, as lora.targets may be, some 50 kB.
MAX_BYTES = 200_000

_FILES = ("data.path", "recipe.deepspeed_config")
_FOLDERS = ("data.tokenizer",)
_EXAMPLE = "write KEY=VALUE, such as recipe.micro_batch=8"


@dataclass(frozen=True)
class Asked:
    """A Job and the part of a Machine that it runs on."""

    job: Job
    machine: Machine


def read(source: str, changes: Iterable[str] = (), machine: str | None = None) -> Asked:
    """The Job in the file `source` ('-': standard input) with `changes` ('recipe.micro_batch=8', 'machine.gpu.hbm.clock=1593 MHz') made to it.

    The machine is `machine`, else the Job's, else `DEFAULT_MACHINE`. Paths inside the file are relative to its folder, those in `changes`
    to the current one. Raises `InputError`.
    """
    data = safe_yaml.mapping(_text(source), source)
    _resolve(data, Path() if source == "-" else Path(source).parent)
    of_machine: dict[str, object] = {}
    for change in changes:
        key, value = _parsed(change)
        if key.startswith("machine."):
            of_machine[key.removeprefix("machine.")] = value
        else:
            fields.put(data, key.split("."), _here(key, value))
    if machine is not None:
        data["machine"] = machine
    return ask(fields.read(Job, data), of_machine)


def ask(job: Job, machine_changes: dict[str, object] | None = None) -> Asked:
    """`job` with every file that it names looked for, and its machine from the catalogue. Raises `InputError`."""
    _look_for_files(job)
    named = job.model_copy(update={"machine": job.machine or DEFAULT_MACHINE})
    machine = catalogue.machine(named.machine or DEFAULT_MACHINE)
    if machine_changes:
        machine = fields.with_values(machine, machine_changes, "machine")
    return Asked(named, machine.with_gpus(job.gpus))


def _text(source: str) -> str:
    try:
        if source == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError("job file", source, f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise InputError("job file", source, "is no path") from None
    if len(raw) > MAX_BYTES:
        raise InputError("job file", source, f"larger than {MAX_BYTES:,} bytes: not a job file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("job file", source, "is not UTF-8 text") from None


def _parsed(change: str) -> tuple[str, object]:
    key, equals, text = change.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")):
        raise InputError("--set", change, _EXAMPLE)
    return key, safe_yaml.value(text, key)


def _resolve(data: dict[str, Any], folder: Path) -> None:
    """Make the paths in `data` relative to the current folder instead of to `folder`."""
    for dotted in ("model", *_FILES, *_FOLDERS):
        holder, _, key = dotted.rpartition(".")
        part = data.get(holder) if holder else data
        if isinstance(part, dict) and isinstance(part.get(key), str):
            part[key] = _at(dotted, part[key], folder)


def _here(key: str, value: object) -> object:
    return _at(key, value, Path()) if isinstance(value, str) and key in ("model", *_FILES, *_FOLDERS) else value


def _at(key: str, text: str, folder: Path) -> str:
    if not text.strip() or "\0" in text or (key == "model" and not _is_path(text, folder)):
        return text
    try:
        return str(folder / Path(text).expanduser())
    # `~someone` where there is no such person.
    except RuntimeError:
        raise InputError(key, text, "no such home folder") from None


def _is_path(model: str, folder: Path) -> bool:
    if model in catalogue.models():
        return False
    try:
        return "/" in model or model.endswith(".json") or (folder / model).exists()
    except OSError:
        return False


def _look_for_files(job: Job) -> None:
    catalogue.model_entry(job.model, job.allow_code)
    if job.recipe.deepspeed_config is not None:
        deepspeed_json(job.recipe.deepspeed_config)
    if job.data.path is not None and job.data.tokenizer is not None:
        _must_be(Path(job.data.path).is_file, "data.path", job.data.path, "there is no such file")
        _must_be(Path(job.data.tokenizer).is_dir, "data.tokenizer", job.data.tokenizer, "there is no such folder")


def _must_be(test: Any, field: str, path: str, cure: str) -> None:
    try:
        found = test()
    except (OSError, ValueError):
        found = False
    if not found:
        raise InputError(field, path, cure)
