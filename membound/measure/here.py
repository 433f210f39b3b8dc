"""Which machine this is: an entry of the catalogue where its GPU is known there, else what the system itself says."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any, Final

import psutil

from membound.spec import catalogue

# What nvmlDeviceGetName answers (board names of NVIDIA's driver), and the catalogue's machine of one such GPU and of several.
_KNOWN: Final[Mapping[str, tuple[str, str | None]]] = {
    "NVIDIA H100 80GB HBM3": ("h100-sxm", "hgx-h100"),
    "NVIDIA H100 PCIe": ("h100-pcie", None),
    "NVIDIA H200": ("h200", "hgx-h200"),
    "NVIDIA B200": ("b200", "hgx-b200"),
    "NVIDIA A100-SXM4-80GB": ("a100-sxm-80gb", "hgx-a100-80gb"),
    "NVIDIA A100-SXM4-40GB": ("a100-sxm-40gb", "hgx-a100-40gb"),
    "NVIDIA A100 80GB PCIe": ("a100-pcie-80gb", None),
    "NVIDIA A100-PCIE-40GB": ("a100-pcie-40gb", None),
    "NVIDIA L40S": ("l40s", None),
    "NVIDIA GH200 480GB": ("gh200", None),
    "NVIDIA GeForce RTX 4090": ("rtx-4090", "rtx-4090-x2"),
    "NVIDIA GeForce RTX 3090": ("rtx-3090", "rtx-3090-x2"),
}


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that a job started here would see; empty where there are none, or no driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in {"", "-1", "NoDevFiles"}:
        return []
    found = _driver_names()
    if visible is None:
        return found
    asked = [word.strip() for word in visible.split(",")]
    # Numbers choose and order; identifiers (GPU-..., MIG-...) only count here.
    return [found[int(word)] if word.isdigit() and int(word) < len(found) else found[0] for word in asked] if found else []


def numbers(ranks: int) -> list[int] | None:
    """Numbers, as the driver counts them, of the GPUs that a job of so many ranks on this node uses; None where they cannot be told."""
    visible, found = os.environ.get("CUDA_VISIBLE_DEVICES"), _driver_names()
    # CUDA puts the quickest first, the driver counts by the bus: where all are alike that is the same.
    if len(set(found)) != 1 or os.environ.get("CUDA_DEVICE_ORDER", "") not in {"", "FASTEST_FIRST", "PCI_BUS_ID"}:
        return None
    words = [str(number) for number in range(len(found))] if visible is None else [word.strip() for word in visible.split(",")]
    used = words[:ranks]
    return [int(word) for word in used] if len(used) == ranks and all(word.isdigit() and int(word) < len(found) for word in used) else None


def _driver_names() -> list[str]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def machine(found: list[str], used: int, name: str | None = None) -> dict[str, Any]:
    """The document of this machine, `used` of whose GPUs `found` a job uses; `name` is the catalogue entry that the user says it is.

    Raises `UnknownNameError` for a name that is in no catalogue, `InputError` if that machine has fewer GPUs.
    """
    if name is not None:
        return dict(catalogue.machine(name).with_gpus(used).model_dump(mode="json"))
    alike = len(set(found)) == 1
    one, several = _KNOWN.get(found[0], (None, None)) if alike else (None, None)
    known = one if len(found) == 1 else several
    if known is not None and catalogue.machine(known).gpus >= used > 0:
        return dict(catalogue.machine(known).with_gpus(used).model_dump(mode="json"))
    return {"name": "this machine", "nodes": 1, "gpus": min(used, len(found)), **({"gpu": {"name": found[0]}} if alike else {}), "host": host()}


def host() -> dict[str, Any]:
    """Processor, cores and memory of this machine, as its system says."""
    return {"cpu": _processor(), "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1, "capacity": psutil.virtual_memory().total}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("model name")]
    except OSError:
        lines = []
    return lines[0].partition(":")[2].strip() if lines else platform.processor() or platform.machine()
