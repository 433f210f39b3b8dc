"""What stands around a model's operators on the host, beside what the law makes of it: optimizers' steps, operators of several launches, copies.

    python validation/compare_host_steps.py [validation/kernels/h200-host-steps.csv ...]       of measure_host_steps.py

Every time is divided by the host's pace then: the tiny models' over what the law makes of them (`layers` in validation/h200/host.json), the mean of
before and after each of the two rounds, and of all files. `more` is what a step takes beyond the calls that the ghost records
of it, as a line over the number of parameters.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from membound.cost.launch import MODEL_CODE  # noqa: E402
from membound.cost.profile import Profile, profile_of  # noqa: E402
from membound.replay import host_calls  # noqa: E402
from membound.spec import catalogue  # noqa: E402
from membound.spec.job import Job  # noqa: E402
from membound.study.predicting import Predictor  # noqa: E402
from membound.trace.schema import PHASE  # noqa: E402

MEASURED = sorted((ROOT / "validation" / "kernels").glob("h200-host-steps*.csv"))
LAYERS = ROOT / "validation" / "h200" / "host.json"
DEPTHS = (1, 12)
PRICES = ("step", "parameter", "scaler")
Times = dict[tuple[str, str, str], float]


def read(path: Path) -> Times:
    """Seconds by family, what and how, where the host keeps the law's pace: the mean of the rounds."""
    law = json.loads(LAYERS.read_text())["layers"]
    paces: list[float] = []
    rounds: list[Times] = [{}]
    layers: dict[str, float] = {}
    for row in csv.DictReader(path.open()):
        if row["family"] == "pace":
            layers[row["what"]] = float(row["mean"]) / law[row["what"]]
            if len(layers) == len(law):
                paces.append(statistics.median(layers.values()))
                layers = {}
                rounds += [{}]
            continue
        rounds[-1][row["family"], row["what"], row["how"]] = float(row["mean"])
    found = rounds[1 : len(paces)]
    print(f"pace before, between and after: {', '.join(f'{each:.2f}' for each in paces)}")
    scaled = [{key: seconds / statistics.mean(paces[at : at + 2]) for key, seconds in times.items()} for at, times in enumerate(found)]
    return {key: statistics.mean(times[key] for times in scaled) for key in scaled[0]}


def line(points: dict[int, float]) -> tuple[float, float]:
    """Fixed and for each parameter, s."""
    slope, fixed = np.polyfit(list(points), list(points.values()), 1)
    return float(fixed), float(slope)


def of_law(recipe: dict[str, Any], profile: Profile) -> tuple[float, float]:
    """Fixed and for each parameter, s: what the law makes of a step's calls alone, of two models of the same kind."""
    config = dict(catalogue.model("tiny").config)
    points = {}
    for depth in DEPTHS:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps({**config, "num_hidden_layers": depth}))
            written = {"model": f"{folder}/config.json", "data": {"seq_len": 64}, "recipe": {"micro_batch": 1, **recipe}, "gpus": 1}
            program = Predictor().replayer(Job.model_validate(written), 1).program
        inside = program.phase == PHASE["optimizer"]
        points[host_calls.stepped(program)] = float(host_calls.seconds(program, profile)[inside].sum())
    return line(points)


class Counted(TorchDispatchMode):
    """Counts calls that launch, and views."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.views = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        view = any(argument.alias_info is not None and not argument.alias_info.is_write for argument in func._schema.arguments)
        self.views += view
        self.kernels += not view
        return func(*args, **(kwargs or {}))


def of_chain(count: int, cast: bool, prices: Mapping[str, float]) -> tuple[float, float]:
    """Seconds of forward and of backward by the law: calls of the chain of layers that measure_host_steps.py runs."""
    net = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(count)))
    with Counted() as ahead, torch.autocast("cpu", torch.bfloat16, enabled=cast):
        loss = net(torch.randn(4, 16)).float().sum()
    with Counted() as back:
        loss.backward()
    forward = ahead.kernels * prices["kernel"] + ahead.views * prices["view"] + (count + 1) * prices["module"]
    return MODEL_CODE * forward, MODEL_CODE * (back.kernels * prices["backward"] + back.views * prices["view_backward"])


def calls(times: Times, prices: Mapping[str, float]) -> None:
    """What calling a model and its backward takes beyond its layers' calls: the line over the number of layers, at none."""
    print()
    for cast in (False, True):
        law = {count: of_chain(count, cast, prices) for count in (1, 9)}
        for index, part in enumerate(("forward", "backward")):
            how = " under autocast" if cast else ""
            measured = line({count: times["call", part, f"{count} layers{how}"] for count in law})
            known = line({count: both[index] for count, both in law.items()})
            told = [f"{1e6 * measured[at]:6.1f} us, by the law {1e6 * known[at]:6.1f}" for at in (0, 1)]
            print(f"{part + how:28} at no layer {told[0]}; a layer {told[1]}")


def main() -> None:
    """Tables on the screen."""
    files = [read(path) for path in [Path(each) for each in sys.argv[1:]] or MEASURED]
    keys = dict.fromkeys(key for each in files for key in each)
    times = {key: statistics.mean(each[key] for each in files if key in each) for key in keys}
    shipped = profile_of(catalogue.machine("h200").gpu)
    bare = Profile(**{**vars(shipped), "launch": {**shipped.launch, **dict.fromkeys(PRICES, 0.0)}})
    print(f"\n{'a step':28} {'measured':>22} {'its calls, by the law':>24} {'more':>20}")
    for what in dict.fromkeys(what for family, what, _ in times if family == "step"):
        optimizer, precision, *clipped = what.split()
        measured = line({int(how): seconds for (family, name, how), seconds in times.items() if family == "step" and name == what})
        law = of_law({"optimizer": optimizer, "precision": precision, "max_grad_norm": 1.0 if clipped else 0.0}, bare)
        told = [f"{1e3 * fixed:6.2f} ms + {1e6 * each:5.1f} us" for fixed, each in (measured, law, (measured[0] - law[0], measured[1] - law[1]))]
        print(f"{what:28} {told[0]:>22} {told[1]:>24} {told[2]:>20}")
    one = times["operator", "aten.add.Tensor", "autograd on"]
    print(f"\noperators, in additions of {1e6 * one:.1f} us")
    for (family, what, how), seconds in times.items():
        if family in {"operator", "function"}:
            print(f"{what:40} {how:28} {seconds / one:6.1f}")
    calls(times, shipped.launch)
    print()
    for (family, what, how), seconds in times.items():
        if family == "copy":
            print(f"{what:12} {how:30} {1e3 * seconds:8.3f} ms")


if __name__ == "__main__":
    main()
