"""What the host pays for real model code: Python of Transformers' and PEFT's modules, with kernels too small to matter. Seconds per layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from membound.measure.calibrate.bench import Bench, Row
from membound.measure.calibrate.run import COLUMNS

LAYERS = (4, 12)  # the difference of the two is what a layer costs; the launches of twelve stay below what a stream queues


def rows(bench: Bench) -> Iterator[Row]:
    for title, make, autocast in tiny(bench):
        seconds = {count: _both(bench, make(count), autocast) for count in LAYERS}
        for way, index in (("forward", 0), ("backward", 1)):
            each = (seconds[LAYERS[1]][index] - seconds[LAYERS[0]][index]) / (LAYERS[1] - LAYERS[0])
            rest = seconds[LAYERS[0]][index] - each * LAYERS[0]
            yield _row(f"{title} {way}", each, "host time of a layer")
            yield _row(f"{title} {way}", rest, "host time of all that is no layer")
    yield from _steps(bench)


def _row(op: str, seconds: float, notes: str) -> Row:
    row: Row = dict.fromkeys(COLUMNS, "")
    row.update(family="models", op=op, seconds_warm=f"{seconds:.4g}", notes=notes)
    return row


def tiny(bench: Bench) -> Iterator[tuple[str, Callable[[int], torch.nn.Module], bool]]:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    def llama(count: int, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Module:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 128}
        return LlamaForCausalLM(LlamaConfig(num_hidden_layers=count, use_cache=False, **sizes)).to(bench.device, dtype)

    def gpt2(count: int) -> torch.nn.Module:
        return GPT2LMHeadModel(GPT2Config(n_embd=64, n_head=4, vocab_size=128, n_layer=count, use_cache=False)).to(bench.device, torch.bfloat16)

    yield "llama bf16", llama, False
    yield "llama autocast", lambda count: llama(count, torch.float32), True
    yield "gpt2 bf16", gpt2, False
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        return
    lora = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    yield "llama lora bf16", lambda count: get_peft_model(llama(count), lora, autocast_adapter_dtype=False), False


def _both(bench: Bench, model: torch.nn.Module, autocast: bool) -> tuple[float, float]:
    """Host seconds of forward and of backward, the least of eight."""
    ways = [once(bench, model, autocast) for _ in range(8)]
    return min(forward for forward, _ in ways), min(backward for _, backward in ways)


def once(bench: Bench, model: torch.nn.Module, autocast: bool) -> tuple[float, float]:
    """Host seconds of forward and of backward."""
    ids = bench.integers(100, 1, 16)
    model.zero_grad(set_to_none=False)
    bench.synchronize()
    start = time.perf_counter()
    with torch.autocast(bench.device.type if isinstance(bench.device, torch.device) else str(bench.device), torch.bfloat16, enabled=autocast):
        loss = model(input_ids=ids, labels=ids).loss
    between = time.perf_counter()
    bench.synchronize()
    middle = time.perf_counter()
    loss.backward()
    end = time.perf_counter()
    bench.synchronize()
    return between - start, end - middle


def _steps(bench: Bench) -> Iterator[Row]:
    for count in (64, 256):
        parameters: list[Any] = [torch.nn.Parameter(bench.random(64, 16, dtype=torch.float32)) for _ in range(count)]
        optimizer = torch.optim.AdamW(parameters)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        best = [float("inf")] * 2
        for _ in range(8):
            bench.synchronize()
            start = time.perf_counter()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            between = time.perf_counter()
            optimizer.step()
            end = time.perf_counter()
            best = [min(best[0], between - start), min(best[1], end - between)]
        # As the family `host` calls it: beside its figure there, it tells whether the host became slower in between.
        yield _row("AdamW.step", _in_a_row(bench, optimizer.step), f"{count} tensors, ten in a row")
        yield _row("clip_grad_norm_", best[0], f"{count} tensors")
        yield _row("AdamW.step", best[1], f"{count} tensors")


def _in_a_row(bench: Bench, run: Callable[[], Any]) -> float:
    """Host seconds of one call of ten, the least of five rounds."""
    best = float("inf")
    for _ in range(5):
        bench.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            run()
        best = min(best, (time.perf_counter() - start) / 10)
    bench.synchronize()
    return best
