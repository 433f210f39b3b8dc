"""What recomputation and bitsandbytes' 4-bit layers cost the host beyond plain layers: on this processor, no GPU needed.

    python validation/measure_host_calls.py OUT.csv [--rounds 40]

The tiny models of `kernel_families/models.py` run with and without recomputation, and a 4-bit layer beside a plain one, so small (one thread, width
64) that what counts is Python, the dispatcher and autograd. All take turns with a view, and processor time counts, so that what else the computer
does matters little. `scaled` is the time where a view costs what the shipped profile says (membound/cost/data/profiles/h100-sxm.yaml).
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "validation")]

from kernel_families import models  # noqa: E402

from membound.cost.profile import profile_of  # noqa: E402
from membound.measure.calibrate.bench import Bench  # noqa: E402
from membound.programs.models import recompute  # noqa: E402
from membound.spec import catalogue  # noqa: E402
from membound.spec.job import Recipe  # noqa: E402

SIDE, CALLS, VIEWS = 64, 20, 200
WAYS = ("none", "full", "selective")
Pair = tuple[float, float]


def seconds(run: Callable[[], Any], calls: int = 1) -> float:
    """Processor time of one call of `calls`."""
    start = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - start) / calls


def layers(rounds: int) -> dict[str, dict[str, Pair]]:
    """By model and way of recomputing: seconds of a layer where a view takes one second, forward and backward."""
    bench = Bench(torch.device("cpu"), True)
    found: dict[str, dict[str, Pair]] = {}
    for title, make, autocast in models.tiny(bench):
        built = {(way, count): _model(make(count), way) for way in WAYS for count in models.LAYERS}
        taken: dict[tuple[str, int], list[Pair]] = {key: [] for key in built}
        views = []
        for turn in range(rounds + 3):
            for key, model in built.items():
                pair = _step(model, autocast)
                if turn >= 3:
                    taken[key].append(pair)
            views.append(_view())
        apart = models.LAYERS[1] - models.LAYERS[0]

        def each(way: str, index: int, taken: Any = taken, apart: int = apart) -> float:
            few, many = (statistics.median(pair[index] for pair in taken[way, count]) for count in models.LAYERS)
            return (many - few) / apart

        view = statistics.median(views)
        found[title] = {way: (each(way, 0) / view, each(way, 1) / view) for way in WAYS}
    return found


def _model(model: torch.nn.Module, way: str) -> torch.nn.Module:
    recompute(model.train(), Recipe(recompute=way))  # type: ignore[arg-type]
    return model


def _step(model: torch.nn.Module, autocast: bool) -> Pair:
    ids = torch.randint(0, 100, (1, 16))
    model.zero_grad(set_to_none=False)
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(input_ids=ids, labels=ids).loss
    between = time.process_time()
    loss.backward()
    return between - start, time.process_time() - between


def _view() -> float:
    base = torch.randn(8, SIDE, requires_grad=True)
    return seconds(lambda: base.view(SIDE, 8), VIEWS)


def quantised(rounds: int) -> dict[str, float]:
    """Seconds of one call of a plain and of a 4-bit layer where a view takes one second."""
    weight = torch.randn(SIDE, SIDE, dtype=torch.bfloat16)
    plain = torch.nn.Linear(SIDE, SIDE, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    packed = bitsandbytes.nn.Linear4bit(SIDE, SIDE, False, torch.bfloat16, compress_statistics=True, quant_type="nf4")
    packed.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4").to("cpu")
    x = torch.randn(8, SIDE, dtype=torch.bfloat16, requires_grad=True)
    of_plain, of_packed = plain(x), packed(x)
    upstream = torch.ones_like(of_plain)
    runs: dict[str, Callable[[], Any]] = {
        "plain forward": lambda: plain(x),
        "4-bit forward": lambda: packed(x),
        "plain backward": lambda: torch.autograd.grad(of_plain, x, upstream, retain_graph=True),
        "4-bit backward": lambda: torch.autograd.grad(of_packed, x, upstream, retain_graph=True),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    views = []
    for _ in range(rounds + 3):
        for name, run in runs.items():
            taken[name].append(seconds(run, CALLS))
        views.append(_view())
    return {name: statistics.median(each[3:]) / statistics.median(views) for name, each in taken.items()}


def main() -> None:
    """Rows as CSV, and what follows from them on the screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    view = profile_of(catalogue.machine("h100-sxm").gpu).launch["view"]
    rows: list[tuple[str, str, float]] = []
    for title, by_way in layers(asked.rounds).items():
        rows += [(f"{title} {part}", f"recompute {way}", pair[i]) for way, pair in by_way.items() for i, part in enumerate(("forward", "backward"))]
        forward, backward = by_way["none"]
        for way in WAYS[1:]:
            more = [1e3 * view * each for each in (by_way[way][0] - forward, by_way[way][1] - backward - forward)]
            print(f"{title:16} {way:10} a layer more: forward {more[0]:5.2f} ms, backward {more[1]:5.2f} ms beyond running it again")
    calls = quantised(asked.rounds * 5)
    rows += [(name, "a layer of 64 by 64", value) for name, value in calls.items()]
    for part in ("forward", "backward"):
        print(f"4-bit {part:9} a call more: {(calls[f'4-bit {part}'] - calls[f'plain {part}']) * view * 1e6:5.0f} us")
    with asked.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("what", "how", "views", "scaled"))
        writer.writerows((what, how, f"{value:.4g}", f"{value * view:.4g}") for what, how, value in rows)


if __name__ == "__main__":
    main()
