"""What real model code costs the host beside what the law's prices of single calls add up to: the family `models` of measured kernels.

    python validation/compare_host.py [--rows validation/kernels/h100-sxm-host.csv] [--machine h100-sxm] [TITLE ...]
    python validation/compare_host.py --engines
    python validation/compare_host.py --rest [--rows ...] [TITLE ...]

The tiny models of `kernel_families/models.py` are captured and their launches priced by the shipped profile at call_time 1; seconds per layer are
the difference of 12 and 4 layers over 8, as measured there. `--engines` does the same for the Llama of them under DDP, FSDP2 and ZeRO on two GPUs
(`validation/kernels/h100-sxm-engines.csv`), forward and backward apart, and says which price of the engine's own Python would make up the rest.
`--rest` compares what is no layer, forward and backward together, at the pace of the same layers: what was missing there is the price `model`.
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

from membound.cost.profile import shipped  # noqa: E402
from membound.replay.program import Program  # noqa: E402
from membound.replay.step import Played  # noqa: E402
from membound.spec import catalogue, fields  # noqa: E402
from membound.spec.job import Job  # noqa: E402
from membound.study.predicting import Predictor  # noqa: E402
from membound.trace.schema import KIND, PHASE  # noqa: E402

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


ENGINES_ROWS = ROOT / "validation/kernels/h100-sxm-engines.csv"
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {"engine": "ddp", "precision": "bf16"},
    "fsdp": {"engine": "fsdp", "precision": "bf16"},
    "zero1": {"engine": "deepspeed", "zero_stage": 1, "precision": "bf16-mixed"},
    "zero3": {"engine": "deepspeed", "zero_stage": 3, "precision": "bf16-mixed"},
}
# What engines' own Python is priced by, where there is such a price: engine, phase, kind of `membound.cost.launch.KINDS`.
ENGINES_PRICES = {
    ("fsdp", "forward"): "gather", ("fsdp", "backward"): "gather", ("zero1", "backward"): "reduce",
    ("zero3", "forward"): "hooked", ("zero3", "backward"): "hooked_backward",
}  # fmt: skip


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


def engine_cost(engine: str, phase: str, folder: Path) -> tuple[Cost, float | None]:
    """Of one layer of the Llama under `engine`, and what its own price would be for the two to agree, s."""
    found = [_played(LLAMA, "num_hidden_layers", ENGINES[engine], layers, "hgx-h100", 2, folder) for layers in LAYERS]
    law = _per_layer([float(each.prices.launch[each.work.program.phase == PHASE[phase]].sum()) for each in found])
    if engine == "zero3":
        # DeepSpeed's default keeps parameters of fewer than 100,000 numbers whole; membound's Job has it gather those of the tiny layer.
        law -= (
            _per_layer([_counted(each.work.program, "fetch", phase) for each in found]) * shipped(catalogue.machine("hgx-h100").gpu).launch["fetch"]
        )
    with ENGINES_ROWS.open(newline="") as file:
        measured = [float(row["seconds_warm"]) for row in csv.DictReader(file) if row["op"] == f"llama {engine} {phase}"]
    kind = ENGINES_PRICES.get((engine, phase))
    if kind is None:
        return Cost(law, measured[0]), None
    count = _per_layer([_counted(each.work.program, kind, phase) for each in found])
    price = shipped(catalogue.machine("hgx-h100").gpu).launch[kind]
    return Cost(law, measured[0]), price + (measured[0] - law) / count


def _per_layer(few_many: list[float]) -> float:
    return (few_many[1] - few_many[0]) / (LAYERS[1] - LAYERS[0])


def _counted(program: Program, kind: str, phase: str) -> float:
    """How often the price `kind` is paid in `phase`: by modules that are hooked, or by collectives."""
    chosen = program.phase == PHASE[phase]
    if kind == "fetch":
        return float(sum("allgather" in name for name, here in zip(program.ops(), chosen, strict=True) if here))
    return float(program.entered[chosen].sum() if kind.startswith("hooked") else (program.kind[chosen] == KIND["collective"]).sum())


def _launches(title: str, layers: int, named: str, folder: Path) -> float:
    played = _played(*MODELS[title], layers, named, 1, folder)
    program = played.work.program
    chosen = (program.phase == PHASE["forward"]) | (program.phase == PHASE["backward"])
    return float(played.prices.launch[chosen].sum())


def _played(config: dict[str, Any], key: str, recipe: dict[str, Any], layers: int, named: str, gpus: int, folder: Path) -> Played:
    path = folder / f"{layers}.json"
    path.write_text(json.dumps({**config, key: layers}))
    written = {"model": str(path), "data": {"seq_len": 16}, "recipe": {"micro_batch": 1, **recipe}, "machine": named, "gpus": gpus}
    host: dict[str, object] = {"host.call_time": 1.0}
    machine = fields.with_values(catalogue.machine(named), host, "machine").with_gpus(gpus)
    return Predictor().replayer(Job.model_validate(written), gpus).on(machine)


def _measured(title: str, rows: Path, what: str = "of a layer") -> float:
    with rows.open(newline="") as file:
        found = [float(row["seconds_warm"]) for row in csv.DictReader(file) if _is(row, title, what)]
    return sum(found)


def _is(row: dict[str, str], title: str, what: str) -> bool:
    return row["family"] == "models" and row["op"] in {f"{title} forward", f"{title} backward"} and row["notes"].endswith(what)


def main() -> None:
    """One line per model, and the median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("titles", nargs="*", metavar="TITLE", help=f"of: {', '.join(MODELS)}")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--machine", default=MACHINE, help="whose profile's prices: one of your own goes before those that ship")
    parser.add_argument("--rest", action="store_true", help="all that is no layer instead: what calling a model takes")
    parser.add_argument("--engines", action="store_true", help="the Llama under each engine, and the prices of engines' own Python")
    asked = parser.parse_args()
    if asked.engines:
        return _engines()
    if asked.rest:
        return _rests(asked.titles or list(MODELS), asked.rows, asked.machine)
    ratios = []
    for title in asked.titles or MODELS:
        found = cost(title, asked.rows, asked.machine)
        ratios.append(found.ratio)
        print(f"{title:16} law {found.law * 1e3:6.3f} ms a layer, measured {found.measured * 1e3:6.3f} ms = {found.ratio:.2f}", flush=True)
    print(f"{'median':16} {statistics.median(ratios):.2f}")


def _rests(titles: list[str], rows: Path, machine: str) -> None:
    """What is no layer, at the pace at which that model's layers ran."""
    for title in titles:
        with tempfile.TemporaryDirectory() as folder:
            few, many = (_launches(title, layers, machine, Path(folder)) for layers in LAYERS)
        layer = (many - few) / (LAYERS[1] - LAYERS[0])
        law, pace = few - LAYERS[0] * layer, _measured(title, rows) / layer
        measured = _measured(title, rows, "no layer") / pace
        print(f"{title:16} law {law * 1e3:6.3f} ms, measured {measured * 1e3:6.3f} ms at the law's pace, {(measured - law) * 1e3:+6.3f}", flush=True)


def _engines() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for engine in ENGINES:
            for phase in ("forward", "backward"):
                found, price = engine_cost(engine, phase, Path(folder))
                said = "" if price is None else f"; in agreement with {ENGINES_PRICES[engine, phase]} at {price * 1e3:.3f} ms"
                law, measured = found.law * 1e3, found.measured * 1e3
                print(f"{engine:6} {phase:9} law {law:6.3f} ms a layer, measured {measured:6.3f} ms = {found.ratio:.2f}{said}", flush=True)


if __name__ == "__main__":
    main()
