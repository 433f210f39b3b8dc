"""Host time of what stands around a model's operators, and of operators that are several launches: on a GPU, with tensors too small to matter.

    python validation/measure_host_steps.py OUT.csv [--rounds 30]

Kinds of rows: `step`, an optimizer's step with all that the engine does around it, by number of parameters; `call`, forward and backward of a chain
of layers; `operator`, calls that launch many kernels; `function`, backward written in Python; `copy`, ordinary memory handed to the GPU. All are
measured twice over, and before, between and after them the host's pace, of the tiny models of `kernel_families/pace.py`: a price is that at the pace
that the law has. `compare_host_steps.py` does that.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "validation")]

from kernel_families.pace import pace  # noqa: E402

from membound.measure.calibrate.bench import Bench  # noqa: E402
from membound.programs.engines import prepare  # noqa: E402
from membound.programs.output import Output  # noqa: E402
from membound.programs.world import World  # noqa: E402
from membound.spec.job import Job  # noqa: E402

GPU = torch.device("cuda")
COUNTS = (8, 64, 256)
OPTIMIZERS = ("sgd", "sgd-momentum", "adamw", "adamw-fused", "adafactor", "lamb", "adamw-8bit")
PRECISIONS = ("bf16-mixed", "fp16-mixed")
LAYERS = (1, 9)
SIZES = (1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 27)
Run = Callable[[], Any]


class Many(nn.Module):
    """So many small matrices, of which nothing is used but their sum's first entries."""

    def __init__(self, count: int) -> None:
        super().__init__()
        # Of 4,096 numbers, from which on bitsandbytes keeps states in 8 bits.
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(64, 64)) for _ in range(count))

    def forward(self) -> Output:
        return Output(torch.stack([weight[0, 0] for weight in self.weights]).sum())


class Own(torch.autograd.Function):
    """An addition whose backward is written in Python."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x + x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] + gradients[0]


def functions(rounds: int) -> Iterator[tuple[str, str, list[float]]]:
    """Seconds of backward through a chain of functions of one's own, and of additions, for each."""
    for title, once in (("own functions", Own.apply), ("additions", lambda x: x + x)):
        taken = []
        for turn in range(rounds + 3):
            x = torch.randn(8, device=GPU, requires_grad=True)
            for _ in range(50):
                x = once(x)
            upstream = torch.ones_like(x)
            torch.cuda.synchronize()
            begin = time.perf_counter()
            torch.autograd.backward(x, upstream)
            if turn >= 3:
                taken.append((time.perf_counter() - begin) / 50)
        torch.cuda.synchronize()
        yield "backward", title, taken


def steps(rounds: int) -> Iterator[tuple[str, str, list[float]]]:
    """Seconds of `Engine.step`."""
    for precision in PRECISIONS:
        for optimizer in OPTIMIZERS:
            if optimizer == "adamw-8bit" and find_spec("bitsandbytes") is None:
                continue
            for clip in (0.0, 1.0):
                if clip and optimizer != "adamw":
                    continue
                for count in COUNTS:
                    recipe = {"precision": precision, "optimizer": optimizer, "max_grad_norm": clip, "micro_batch": 1}
                    job = Job.model_validate({"model": "tiny", "data": {"seq_len": 64}, "recipe": recipe, "gpus": 1})
                    engine = prepare(job, {}, lambda count=count: Many(count), World(GPU))
                    taken = []
                    for turn in range(rounds + 3):
                        engine.backward(engine.forward({}), last=True)
                        torch.cuda.synchronize()
                        begin = time.perf_counter()
                        engine.step()
                        if turn >= 3:
                            taken.append(time.perf_counter() - begin)
                        torch.cuda.synchronize()
                    yield f"{optimizer} {precision}{' clipped' if clip else ''}", str(count), taken


def calls(rounds: int) -> Iterator[tuple[str, str, list[float]]]:
    """Seconds of forward and of backward of a chain of layers, plain and under autocast, with a loss and without."""
    for cast in (False, True):
        for count in LAYERS:
            net = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(count))).to(GPU)
            x = torch.randn(4, 16, device=GPU)
            ahead, back = [], []
            for turn in range(rounds + 3):
                net.zero_grad()
                torch.cuda.synchronize()
                begin = time.perf_counter()
                with torch.autocast("cuda", torch.bfloat16, enabled=cast):
                    loss = net(x).float().sum()
                between = time.perf_counter()
                torch.cuda.synchronize()
                again = time.perf_counter()
                loss.backward()
                end = time.perf_counter()
                torch.cuda.synchronize()
                if turn >= 3:
                    ahead.append(between - begin)
                    back.append(end - again)
            how = f"{count} layers{' under autocast' if cast else ''}"
            yield "forward", how, ahead
            yield "backward", how, back


def operators(rounds: int) -> Iterator[tuple[str, str, list[float]]]:
    """Seconds of one call of ten in a row."""
    for title, how, run in _operators():
        taken = []
        for turn in range(rounds + 3):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(10):
                run()
            if turn >= 3:
                taken.append((time.perf_counter() - begin) / 10)
        yield title, how, taken
    torch.cuda.synchronize()


def _operators() -> Iterator[tuple[str, str, Run]]:
    aten = torch.ops.aten
    x, y = torch.randn(64, 16, device=GPU), torch.randn(64, 16, device=GPU)
    yield "aten.add.Tensor", "autograd off", lambda: aten.add.Tensor(x, y)
    grown = torch.randn(64, 16, device=GPU, requires_grad=True)
    yield "aten.add.Tensor", "autograd on", lambda: torch.add(grown, grown)
    yield "aten.view.default", "autograd on", lambda: grown.view(16, 64)
    for rows in (256, 3000, 4096, 131072):
        ids, gradient = torch.randint(0, 1000, (rows,), device=GPU), torch.randn(rows, 8, device=GPU)
        yield "aten.embedding_dense_backward.default", f"{rows} rows", lambda i=ids, g=gradient: aten.embedding_dense_backward(g, i, 1000, -1, False)
        table = torch.randn(1000, 8, device=GPU)
        yield "aten.index_put_.default", f"{rows} rows, accumulated", lambda i=ids, g=gradient, t=table: aten.index_put_(t, [i], g, True)
        yield "aten.index_add_.default", f"{rows} rows", lambda i=ids, g=gradient, t=table: aten.index_add_(t, 0, i, g)
        yield "aten.index.Tensor", f"{rows} rows", lambda i=ids, t=table: aten.index.Tensor(t, [i])
        row = torch.randn(rows, device=GPU)
        yield "aten.sort.default", f"{rows}", lambda r=row: aten.sort.default(r)
        yield "aten.topk.default", f"{rows}", lambda r=row: aten.topk.default(r, 100)
        yield "aten.cumsum.default", f"{rows}", lambda r=row: aten.cumsum.default(r, 0)
        yield "aten.nonzero.default", f"{rows}, waits", lambda r=row: aten.nonzero.default(r > 0)
    weights = [torch.randn(64, device=GPU) for _ in range(256)]
    for count in (8, 64, 256):
        yield "aten._foreach_add_.Scalar", f"{count} tensors", lambda n=count: torch._foreach_add_(weights[:n], 0.1)
        yield "aten._foreach_norm.Scalar", f"{count} tensors", lambda n=count: torch._foreach_norm(weights[:n])
        others = [torch.randn(64, device=GPU) for _ in range(count)]
        yield "aten._foreach_addcdiv_.ScalarList", f"{count} tensors", lambda n=count, o=others: torch._foreach_addcdiv_(weights[:n], o, o, [0.1] * n)
    matrix, bias = torch.randn(32, 32, device=GPU), torch.randn(32, device=GPU)
    yield "aten.addmm.default", "", lambda: aten.addmm.default(bias, matrix, matrix)
    yield "aten.native_dropout.default", "", lambda: aten.native_dropout(matrix, 0.1, True)
    yield "aten.native_layer_norm.default", "", lambda: aten.native_layer_norm(matrix, [32], bias, bias, 1e-5)
    images, kernel = torch.randn(2, 8, 16, 16, device=GPU), torch.randn(8, 8, 3, 3, device=GPU)
    once = [1, 1]
    yield "aten.convolution.default", "", lambda: aten.convolution(images, kernel, None, once, once, once, False, [0, 0], 1)
    yield "aten.convolution_backward.default", "", lambda: aten.convolution_backward(
        images, images, kernel, None, once, once, once, False, [0, 0], 1, [True, True, False]
    )  # fmt: skip
    eight = torch.ones(8, device=GPU)
    asks = torch.randn(8, device=GPU, requires_grad=True)
    yield "autograd.Function", "forward, with an addition", lambda: Own.apply(asks)
    yield "aten.cudnn_batch_norm.default", "", lambda: aten.cudnn_batch_norm(images, eight, eight, eight, eight, True, 0.1, 1e-5)
    logits, labels = torch.randn(64, 100, device=GPU), torch.randint(0, 100, (64,), device=GPU)
    yield "cross_entropy", "log-softmax and loss", lambda: F.cross_entropy(logits, labels)
    yield "aten._local_scalar_dense.default", "waits", lambda: bias[0].item()


def copies(rounds: int) -> Iterator[tuple[str, str, list[float]]]:
    """Seconds until `.to` comes back, of ordinary memory, on an idle stream and behind 20 ms of work on it."""
    for size in SIZES:
        host = torch.ones(size, dtype=torch.uint8)
        for busy in (False, True):
            taken = []
            for turn in range(max(rounds // 3, 5) + 2):
                torch.cuda.synchronize()
                if busy:
                    torch.cuda._sleep(40_000_000)
                begin = time.perf_counter()
                there = host.to(GPU, non_blocking=True)
                if turn >= 2:
                    taken.append(time.perf_counter() - begin)
                torch.cuda.synchronize()
                del there
            yield "to the GPU", f"{size} B{', behind work' if busy else ''}", taken


FAMILIES = {"operator": operators, "function": functions, "step": steps, "call": calls, "copy": copies}


def main() -> None:
    """Rows as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", choices=FAMILIES, nargs="+", default=FAMILIES, help="families of rows")
    parser.add_argument("--pace", type=float, default=3.0, help="seconds for which the host's pace is measured")
    asked = parser.parse_args()
    families = {family: FAMILIES[family] for family in asked.only}
    bench = Bench(GPU, False)
    with asked.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("family", "what", "how", "least", "median", "mean"))

        def write_pace() -> None:
            for title, found in pace(bench, asked.pace)["layers"].items():
                writer.writerow(("pace", title, "a layer", *(found[name] for name in ("least", "median", "mean"))))

        write_pace()
        for _ in range(2):
            for family, rows in families.items():
                for what, how, taken in rows(asked.rounds):
                    times = (min(taken), statistics.median(taken), statistics.fmean(taken))
                    writer.writerow((family, what, how, *(f"{each:.4g}" for each in times)))
                    file.flush()
            write_pace()


if __name__ == "__main__":
    main()
