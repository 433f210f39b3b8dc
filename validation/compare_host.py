"""What real model code costs the host beside what the law's prices of single calls add up to: the family `models` of measured kernels.

    python validation/compare_host.py [--rows validation/kernels/h100-sxm-host.csv] [--machine h100-sxm] [TITLE ...]

The tiny models of `kernel_families/models.py` are captured and their launches priced by the shipped profile at call_time 1; seconds per layer are
the difference of 12 and 4 layers over 8, as measured there. Nothing is fitted.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from membound.spec import catalogue, fields  # noqa: E402
from membound.spec.job import Job  # noqa: E402
from membound.study.predicting import Predictor  # noqa: E402
from membound.trace.schema import PHASE  # noqa: E402

ROWS = ROOT / "validation/kernels/h100-sxm-host.csv"
MACHINE = "h100-sxm"
LAYERS = (4, 12)
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 128}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "use_cache": False, **SIZES}
GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 64, "n_head": 4, "vocab_size": 128, "use_cache": False}
LORA = {"method": "lora", "lora": {"rank": 16, "alpha": 16, "dropout": 0.0}}
# Configuration, its key of the number of layers, recipe.
MODELS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "llama bf16": (LLAMA, "num_hidden_layers", {"precision": "bf16"}),
    "llama autocast": (LLAMA, "num_hidden_layers", {"precision": "bf16-mixed"}),
    "gpt2 bf16": (GPT2, "n_layer", {"precision": "bf16"}),
    "llama lora bf16": (LLAMA, "num_hidden_layers", {"precision": "bf16", **LORA}),
}


@dataclass(frozen=True)
class Cost:
    """Host seconds of a layer, forward and backward together."""

    law: float
    measured: float

    @property
    def ratio(self) -> float:
        """Measured over what the law's prices add up to."""
        return self.measured / self.law


def cost(title: str, rows: Path = ROWS, machine: str = MACHINE) -> Cost:
    """Of one layer of the model `title`, the law's by the profile of `machine`'s GPU."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = (_launches(title, layers, machine, Path(folder)) for layers in LAYERS)
    return Cost((many - few) / (LAYERS[1] - LAYERS[0]), _measured(title, rows))


def _launches(title: str, layers: int, named: str, folder: Path) -> float:
    config, key, recipe = MODELS[title]
    path = folder / f"{layers}.json"
    path.write_text(json.dumps({**config, key: layers}))
    written = {"model": str(path), "data": {"seq_len": 16}, "recipe": {"micro_batch": 1, **recipe}, "machine": named}
    host: dict[str, object] = {"host.call_time": 1.0}
    machine = fields.with_values(catalogue.machine(named), host, "machine").with_gpus(1)
    played = Predictor().replayer(Job.model_validate(written), 1).on(machine)
    program = played.work.program
    chosen = (program.phase == PHASE["forward"]) | (program.phase == PHASE["backward"])
    return float(played.prices.launch[chosen].sum())


def _measured(title: str, rows: Path) -> float:
    with rows.open(newline="") as file:
        found = [float(row["seconds_warm"]) for row in csv.DictReader(file) if _of_a_layer(row, title)]
    return sum(found)


def _of_a_layer(row: dict[str, str], title: str) -> bool:
    return row["family"] == "models" and row["op"] in {f"{title} forward", f"{title} backward"} and row["notes"].endswith("of a layer")


def main() -> None:
    """One line per model, and the median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("titles", nargs="*", metavar="TITLE", help=f"of: {', '.join(MODELS)}")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--machine", default=MACHINE, help="whose profile's prices: one of your own goes before those that ship")
    asked = parser.parse_args()
    ratios = []
    for title in asked.titles or MODELS:
        found = cost(title, asked.rows, asked.machine)
        ratios.append(found.ratio)
        print(f"{title:16} law {found.law * 1e3:6.3f} ms a layer, measured {found.measured * 1e3:6.3f} ms = {found.ratio:.2f}", flush=True)
    print(f"{'median':16} {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
