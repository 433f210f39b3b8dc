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
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

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
    print()
    for (family, what, how), seconds in times.items():
        if family in {"call", "copy"}:
            print(f"{what:12} {how:30} {1e3 * seconds:8.3f} ms")


if __name__ == "__main__":
    main()
