"""What the host pays around calls: recomputed layers, packed weights and calls of a model, each as often as it comes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from membound.cost.profile import Profile, shipped
from membound.replay import host_calls
from membound.replay.program import Program
from membound.spec import catalogue
from membound.spec.job import Job
from membound.study.predicting import Predictor
from membound.trace.schema import PHASE

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


def test_an_operator_that_stands_for_several_costs_their_calls() -> None:
    written = {"model": "mask-rcnn", "data": {"image_size": 256}, "recipe": {"micro_batch": 1, "precision": "fp16-mixed"}, "machine": "h100-sxm"}
    asked = Predictor().replayer(Job.model_validate(written), 1).on(catalogue.machine("h100-sxm")).work.program
    ops = np.array(asked.trace.header.ops)[asked.op]
    found = due_to("kernel", asked)
    for op in ("membound.nms.default", "membound.roi_align.default", "membound.roi_align_backward.default"):
        assert (ops == op).any()
        assert found[ops == op].min() > 5 * H100.launch["kernel"]
