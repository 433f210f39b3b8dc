"""How quickly the host gets through model code at this minute: the tiny models of `models.py`, not at their best but over some seconds.

`pace(bench, seconds)` is measured in a process of its own just before and just after a job, for a virtual machine's processors do not keep their
pace. What a layer takes there, forward and backward, against what the law's prices add up to for the same layer
(`compare_host.py`), is the `host.call_time` of that hour.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from kernel_families import models
from membound.measure.calibrate.bench import Bench


def pace(bench: Bench, seconds: float) -> dict[str, Any]:
    """By model: seconds of a layer on the host, forward and backward together: the least, the median, the mean and the 90th percentile of rounds."""
    built = [(title, [make(count) for count in models.LAYERS], autocast) for title, make, autocast in models.tiny(bench)]
    rounds: dict[str, list[tuple[float, float]]] = {title: [] for title, _, _ in built}
    for _ in range(2):
        for _, pair, autocast in built:
            for model in pair:
                models.once(bench, model, autocast)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or not rounds[built[-1][0]]:
        for title, pair, autocast in built:
            few, many = (sum(models.once(bench, model, autocast)) for model in pair)
            rounds[title].append((few, many))
    return {"rounds": len(rounds[built[0][0]]), "layers": {title: _told(each) for title, each in rounds.items()}}


def _told(pairs: list[tuple[float, float]]) -> dict[str, float]:
    apart = models.LAYERS[1] - models.LAYERS[0]
    few, many = (sorted(each) for each in zip(*pairs, strict=True))
    found = {
        "least": (many[0] - few[0]) / apart,
        "median": (statistics.median(many) - statistics.median(few)) / apart,
        "mean": (statistics.fmean(many) - statistics.fmean(few)) / apart,
        "p90": (many[int(0.9 * (len(many) - 1))] - few[int(0.9 * (len(few) - 1))]) / apart,
    }
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def measured(seconds: float) -> dict[str, Any]:
    """On the GPU of this machine, or on its processor where there is none. A function of a module, for a process of its own to call."""
    dry = not torch.cuda.is_available()
    return pace(Bench(torch.device("cpu" if dry else "cuda"), dry), seconds)
