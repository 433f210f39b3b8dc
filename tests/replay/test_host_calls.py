"""What the host pays around calls: recomputed layers, packed weights and calls of a model, each as often as it comes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from membound.cost.profile import Profile, shipped
from membound.replay import host_calls, several_calls
from membound.replay.program import Program
from membound.spec import catalogue
from membound.spec.job import Job
from membound.study.predicting import Predictor
from membound.trace.schema import KIND, PHASE

H100 = shipped(catalogue.machine("h100-sxm").gpu)


def program(**recipe: Any) -> Program:
    written = {"model": "tiny", "data": {"seq_len": 16}, "recipe": {"micro_batch": 1, "precision": "bf16", **recipe}, "machine": "h100-sxm"}
    return Predictor().replayer(Job.model_validate(written), 1).on(catalogue.machine("h100-sxm")).work.program


def due_to(price: str, asked: Program) -> np.ndarray:
    """Seconds of each item that the price named `price` makes."""
    without: Profile = dataclasses.replace(H100, launch={**H100.launch, price: 0.0})
    return host_calls.seconds(asked, H100) - host_calls.seconds(asked, without)


def layers() -> int:
    config = catalogue.model("tiny").config
    return int(config["num_hidden_layers"])


@pytest.mark.parametrize(("way", "prices"), [("full", ("recompute", "recompute_backward")), ("selective", ("selective", "selective_backward"))])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_each_layer_is_kept_from_saving_and_made_again_once_a_micro_step(way: str, prices: tuple[str, str], accumulation: int) -> None:
    asked = program(recompute=way, accumulation=accumulation)
    micros = len(np.unique(asked.micro[asked.phase == PHASE["forward"]]))
    for price, phase in zip(prices, ("forward", "backward"), strict=True):
        found = due_to(price, asked)
        assert found.sum() == pytest.approx(layers() * micros * H100.launch[price])
        assert not found[asked.phase != PHASE[phase]].any()


def test_a_layer_that_is_saved_costs_nothing_of_that() -> None:
    asked = program()
    for price in ("recompute", "recompute_backward", "selective", "selective_backward", "quantised", "quantised_backward"):
        assert not due_to(price, asked).any(), price


def test_a_product_with_a_packed_weight_and_its_gradient_cost_more_each_time() -> None:
    asked = program(method="qlora")
    ops = np.array(asked.trace.header.ops)[asked.op]
    for price, op in (("quantised", "bitsandbytes.gemm_4bit.default"), ("quantised_backward", "bitsandbytes.dequantize_4bit.default")):
        count = int((ops == op).sum())
        assert count >= layers()
        assert due_to(price, asked).sum() == pytest.approx(count * H100.launch[price])


def test_calling_a_model_costs_once_a_micro_step() -> None:
    asked = program(accumulation=3)
    micros = len(np.unique(asked.micro[asked.phase == PHASE["forward"]]))
    assert due_to("model", asked).sum() == pytest.approx(micros * H100.launch["model"])


def test_calling_another_model_and_its_backward_costs_once_a_micro_step() -> None:
    written = {
        "model": "ncf",
        "data": {"samples": True},
        "recipe": {"micro_batch": 16, "precision": "fp16-mixed", "accumulation": 2},
        "machine": "h100-sxm",
    }
    asked = Predictor().replayer(Job.model_validate(written), 1).on(catalogue.machine("h100-sxm")).work.program
    for price, phase in (("call", "forward"), ("call_backward", "backward")):
        micros = len(np.unique(asked.micro[asked.phase == PHASE[phase]]))
        assert micros == 2
        found = due_to(price, asked)
        assert found.sum() == pytest.approx(micros * H100.launch[price])
        assert not found[asked.phase != PHASE[phase]].any()
    assert not due_to("model", asked).any()
    assert not due_to("call", program()).any()


def test_an_operator_that_stands_for_several_costs_their_calls() -> None:
    written = {"model": "mask-rcnn", "data": {"image_size": 256}, "recipe": {"micro_batch": 1, "precision": "fp16-mixed"}, "machine": "h100-sxm"}
    asked = Predictor().replayer(Job.model_validate(written), 1).on(catalogue.machine("h100-sxm")).work.program
    ops = np.array(asked.trace.header.ops)[asked.op]
    found = due_to("kernel", asked)
    for op in ("membound.nms.default", "membound.roi_align.default", "membound.roi_align_backward.default"):
        assert (ops == op).any()
        assert found[ops == op].min() > 5 * H100.launch["kernel"]


@pytest.mark.parametrize(("optimizer", "each"), [("sgd", 1.0), ("adamw-fused", 1.0), ("adamw", 2.0), ("lamb", 5.0), ("adafactor", 0.0)])
def test_an_optimizers_step_loops_over_its_parameters(optimizer: str, each: float) -> None:
    asked = program(optimizer=optimizer)
    parameters = 3 + 9 * layers()  # embeddings, head and last norm; seven products and two norms a layer
    assert host_calls.stepped(asked) == parameters
    step, loop = due_to("step", asked), due_to("parameter", asked)
    assert step.sum() == pytest.approx(H100.launch["step"])
    assert loop.sum() == pytest.approx(parameters * each * H100.launch["parameter"])
    first = np.flatnonzero(asked.phase == PHASE["optimizer"])[0]
    assert step[first]


def test_adapters_alone_are_stepped() -> None:
    asked = program(method="lora", lora={"targets": ["q_proj", "v_proj"]})
    assert host_calls.stepped(asked) == 2 * 2 * layers()


def test_a_scaled_step_begins_when_gradients_are_known_to_be_finite() -> None:
    asked = program(precision="fp16-mixed", optimizer="sgd-momentum")
    inside = np.flatnonzero(asked.phase == PHASE["optimizer"])
    (wait,) = inside[asked.kind[inside] == KIND["sync"]]
    scaler, step = (np.flatnonzero(due_to(price, asked)) for price in ("scaler", "step"))
    assert scaler.tolist() == [inside[0]]
    assert step.tolist() == [wait + 1]
    assert not due_to("scaler", program(optimizer="sgd-momentum")).any()


def test_an_engine_of_its_own_optimizer_is_not_one_of_pytorchs() -> None:
    assert not due_to("parameter", program(engine="deepspeed", zero_stage=1)).any()


@pytest.mark.parametrize(("rows", "several"), [(16, False), (3072, False), (3073, True)])
def test_the_gradient_of_an_embedding_is_sorted_from_so_many_rows_on(rows: int, several: bool) -> None:
    written = {"model": "tiny", "data": {"seq_len": rows}, "recipe": {"micro_batch": 1, "precision": "bf16"}, "machine": "h100-sxm"}
    asked = Predictor().replayer(Job.model_validate(written), 1).on(catalogue.machine("h100-sxm")).work.program
    calls = several_calls.calls(asked)
    ops = np.array(asked.trace.header.ops)[asked.op]
    (found,) = calls[ops == "aten.embedding_dense_backward.default"]
    assert found == pytest.approx(16.3 if several else 0.0)


def test_the_host_waits_for_what_asks_how_many_there_are_and_for_large_ordinary_memory() -> None:
    written = {"model": "mask-rcnn", "data": {"image_size": 512}, "recipe": {"micro_batch": 1, "precision": "fp16-mixed"}, "machine": "h100-sxm"}
    played = Predictor().replayer(Job.model_validate(written), 1).on(catalogue.machine("h100-sxm"))
    asked, line = played.work.program, played.timeline
    ops = np.array(asked.trace.header.ops)[asked.op]
    assert set(ops[asked.waited]) == {"membound.nms.default", "membound.roi_align.default", "membound.roi_align_backward.default"}
    copies = asked.kind == KIND["copy_h2d"]
    held = copies & (asked.flag == 0)
    assert held.any()
    assert asked.moved[0][held & (asked.phase == PHASE["data"])].max() > 1 << 20
    # Nothing after it is launched before it is over.
    for at in np.flatnonzero(asked.waited | held):
        later = np.flatnonzero(np.isin(asked.kind, [KIND["kernel"], KIND["copy_h2d"]]) & (np.arange(len(asked)) > at))[:1]
        assert (line.host[later] >= line.end[at] - 1e-9).all()
