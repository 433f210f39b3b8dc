"""The Programs beyond causal language models, for real on the CPU at tiny size, and their modules against what they stand for."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import nn

from membound.errors import InputError
from membound.programs import registry, vision_boxes, vision_ssd
from membound.programs.encoder_decoder import span_corruption
from membound.programs.lamb import Lamb
from membound.programs.recommender_tables import Tables, placement
from membound.programs.vision_operators import nms, overlap, roi_align
from membound.programs.world import Unwatched, World
from membound.spec import catalogue, families
from membound.spec.job import Job

TINY: Final[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "tiny_models.json").read_text())
OTHERS: Final = [name for name in catalogue.models() if families.of(catalogue.model(name).config).name != "causal-lm"]
CPU: Final = World(torch.device("cpu"))

# SHA-256 of the sorted lines "name shape" of torchvision 0.29.1's state dicts, which differ from ours by nothing but the counters of batches
# that torchvision keeps where it is built without pretrained weights.
TORCHVISION: Final = {"resnet-50": "a87e91cd6bd1f939", "mask-rcnn": "fac6a17b4d4c2bb9"}


def job(name: str, **changes: Any) -> tuple[Job, dict[str, Any]]:
    """A Job for the tiny form of a catalogue model, and its configuration."""
    recipe = {"micro_batch": 4, "learning_rate": 1e-2, "precision": "fp32", **changes}
    config = {**catalogue.model(name).config, **TINY[name]["config"]}
    return Job.model_validate({"model": name, "data": TINY[name]["data"], "recipe": recipe}), config


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small gain nothing from more, and lose much on a busy computer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Losses(Unwatched):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def loss(self, step: int, loss: torch.Tensor) -> None:
        self.seen.append(loss.detach().item())


def test_every_other_model_has_a_tiny_form() -> None:
    assert sorted(TINY) == OTHERS


@pytest.mark.parametrize(("name", "precision"), list(itertools.product(OTHERS, ["fp32", "bf16-mixed"])))
def test_the_loss_of_a_batch_falls(name: str, precision: str) -> None:
    torch.manual_seed(0)
    asked, config = job(name, precision=precision, optimizer="adamw", learning_rate=0.1 if name == "dlrm" else 3e-3)
    program, losses = registry.program(asked, config), Losses()
    world = World(torch.device("cpu"), watcher=losses)
    batch = program.batches(world)(0)
    try:
        program.run(world, 12, lambda index: batch)
    except RuntimeError as error:
        # oneDNN trains no LSTM in bf16 on processors without the instructions for it; a GPU does.
        if "primitive descriptor for the LSTM" not in str(error):
            raise
        pytest.skip(f"not on this processor: {error}")
    assert all(math.isfinite(loss) for loss in losses.seen)
    assert sum(losses.seen[-3:]) < sum(losses.seen[:3])


@pytest.mark.parametrize("name", OTHERS)
def test_batches_differ_by_number_and_rank_and_repeat(name: str) -> None:
    program = registry.program(*job(name))
    batches = program.batches(CPU)
    first, again, second = batches(0), batches(0), batches(1)
    other = program.batches(World(torch.device("cpu"), rank=1, size=1))(0) if name != "dlrm" else second
    assert all(torch.equal(first[key], again[key]) for key in first)
    for changed in (second, other):
        assert any(not torch.equal(first[key], changed[key]) for key in first)


@pytest.mark.parametrize("name", OTHERS)
def test_planned_batches_have_the_shapes_of_real_ones(name: str) -> None:
    program = registry.program(*job(name))
    real, planned = program.batches(CPU)(0), program.planned()
    assert {key: (t.shape, t.dtype, t.stride()) for key, t in planned.items()} == {key: (t.shape, t.dtype, t.stride()) for key, t in real.items()}


@pytest.mark.parametrize("name", OTHERS)
def test_parameters_are_as_the_catalogue_has_them(name: str) -> None:
    model = full_size(name)
    counted = sum(vars(parameter).get("ds_numel", parameter.numel()) for parameter in model.parameters())
    assert counted == catalogue.model(name).parameters


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_layer_is_torchvisions(name: str) -> None:
    lines = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in full_size(name).state_dict().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == TORCHVISION[name]


def full_size(name: str) -> nn.Module:
    """The catalogue's model without memory."""
    entry = catalogue.model(name)
    assert entry.reference is not None
    asked = Job.model_validate({"model": name, "data": entry.reference["data"], "recipe": {"precision": "fp32"}})
    with torch.device("meta"):
        return registry.program(asked, entry.config).model(World(torch.device("meta"), weights="empty"))


@pytest.mark.parametrize(
    ("name", "changes", "field", "cure"),
    [
        ("resnet-50", {"data": {"seq_len": 512}}, "data.seq_len", "resnet-50 is a vision model: write data: {image_size: 224}"),
        ("bert-large", {"data": {"lengths": "alpaca"}}, "data.lengths", "write data: {seq_len: 512}"),
        ("bert-large", {"data": {"seq_len": 513}}, "data.seq_len", "positions for 512 tokens"),
        ("bert-large", {"data": {"seq_len": 8, "target_len": 8}}, "data.target_len", "no decoder of its own"),
        ("bert-large", {"recipe": {"engine": "fsdp"}, "gpus": 2}, "recipe.engine", "write ddp or deepspeed"),
        ("bert-large", {"recipe": {"method": "lora"}}, "recipe.method", "write full"),
        ("llama-7b", {"data": {"samples": True}}, "data.samples", "llama-7b is a causal-lm model"),
        ("ssd", {"data": {"image_size": 512}}, "data.image_size", "takes images of 300 pixels"),
        ("gnmt", {"recipe": {"method": "lora"}}, "recipe.method", "adapters serve language models"),
        ("gnmt", {"recipe": {"recompute": "full"}}, "recipe.recompute", "no layers to recompute"),
        ("ncf", {"recipe": {"engine": "fsdp"}, "gpus": 2}, "recipe.engine", "write none or ddp"),
        ("ncf", {"recipe": {"kernels": "liger"}}, "recipe.kernels", "write eager"),
        ("dlrm", {"recipe": {"precision": "fp16-mixed"}}, "recipe.precision", "write bf16-mixed or fp32"),
        ("dlrm", {"recipe": {"accumulation": 2}}, "recipe.accumulation", "raise micro_batch instead"),
        ("dlrm", {"recipe": {"engine": "ddp"}, "gpus": 32}, "gpus", "26 tables"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(name: str, changes: dict[str, Any], field: str, cure: str) -> None:
    entry = catalogue.model(name)
    asked = Job.model_validate({"model": name, "data": entry.reference["data"] if entry.reference else {"seq_len": 8}, **changes})
    with pytest.raises(InputError) as caught, torch.device("meta"):
        checked_and_built(asked, entry.config)
    assert str(caught.value).startswith(f"{field}: ")
    assert cure in str(caught.value)
    assert "\n" not in str(caught.value)


def checked_and_built(asked: Job, config: dict[str, Any]) -> None:
    """What a Program does before it trains."""
    registry.program(asked, config).model(World(torch.device("meta"), size=asked.gpus, weights="empty"))


class TestOperators:
    def test_pooling_a_slope_gives_its_value_at_each_bins_middle(self) -> None:
        slope = torch.arange(16.0).expand(1, 1, 16, 16)  # the value at a pixel is its column
        box = torch.tensor([[0.0, 8.0, 8.0, 40.0, 40.0]])  # at a quarter: columns 2 to 10
        pooled = roi_align([torch.zeros(1, 1, 32, 32), slope], box, torch.tensor([1]), [0.5, 0.25], 4)
        assert torch.allclose(pooled[0, 0, 0], torch.tensor([3.0, 5.0, 7.0, 9.0]))

    def test_pooling_has_the_gradient_of_its_own_differences(self) -> None:
        torch.manual_seed(0)
        maps = [torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)]
        regions = torch.tensor([[0.0, 1.0, 2.0, 9.0, 13.0], [1.0, -3.0, 4.0, 15.0, 30.0], [1.0, 3.0, 3.0, 4.0, 4.0]], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda *m: roi_align(list(m), regions, torch.tensor([0, 1, 0]), [0.5, 0.25], 2), maps, atol=1e-4)

    @pytest.mark.parametrize("seed", range(4))
    def test_suppression_keeps_what_one_by_one_keeps(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        corner = torch.rand(60, 2, generator=draw) * 10
        boxes = torch.cat((corner, corner + 1 + torch.rand(60, 2, generator=draw) * 5), dim=1)
        scores = torch.rand(60, generator=draw)
        kept: list[int] = []
        for i in scores.argsort(descending=True).tolist():
            if all(overlap(boxes[i : i + 1], boxes[j : j + 1]) <= 0.5 for j in kept):
                kept.append(i)
        assert nms(boxes, scores, 0.5).nonzero().flatten().tolist() == sorted(kept)

    def test_boxes_come_back_from_their_offsets(self) -> None:
        boxes, anchors = torch.tensor([[1.0, 2.0, 8.0, 12.0]]), torch.tensor([[0.0, 0.0, 6.0, 6.0]])
        offsets = vision_boxes.encode(boxes, anchors, (10.0, 5.0))
        assert torch.allclose(vision_boxes.decode(offsets, anchors, (10.0, 5.0)), boxes)

    def test_samples_begin_with_the_positive_ones_and_take_no_more_than_asked(self) -> None:
        labels = torch.tensor([[1] * 10 + [0] * 20 + [-1] * 5, [1] * 2 + [0] * 3 + [-1] * 30])
        drawn, marks = vision_boxes.sample(labels, 16, 4)
        assert (marks[0] == 1).sum() == 4
        assert (marks[1] == 1).sum() == 2
        assert (marks[1] == -1).sum() == 11
        assert all(row.sort(descending=True).values.equal(row) for row in marks)
        assert (labels.gather(1, drawn)[marks >= 0] == marks[marks >= 0]).all()

    def test_default_boxes_are_the_papers(self) -> None:
        assert vision_ssd.map_sizes(300) == [38, 19, 10, 5, 3, 1]
        assert vision_ssd.default_boxes(300).shape == (8732, 4)


class TestTables:
    def test_a_step_moves_the_rows_of_the_batch_and_no_others(self) -> None:
        tables = Tables([5, 3], 2, 0.5, torch.device("cpu"), torch.float32, values=True)
        before = [weight.detach().clone() for weight in tables.weights]
        tables(torch.tensor([[1, 1, 4], [0, 0, 0]])).sum().backward()
        moved = [old - weight.detach() for old, weight in zip(before, tables.weights, strict=True)]
        assert torch.allclose(moved[0], torch.tensor([0.0, 1.0, 0.0, 0.0, 0.5])[:, None].expand(5, 2))
        assert torch.allclose(moved[1], torch.tensor([1.5, 0.0, 0.0])[:, None].expand(3, 2))
        assert all(weight.grad is None for weight in tables.weights)

    @pytest.mark.parametrize("ranks", [1, 2, 8, 26])
    def test_every_table_lies_on_one_rank_and_every_rank_has_one(self, ranks: int) -> None:
        rows = catalogue.model("dlrm").config["tables"]
        held = placement(rows, ranks)
        assert sorted(itertools.chain(*held)) == list(range(26))
        assert all(held)
        assert rows.index(max(rows)) in held[0]


def test_span_corruption_makes_the_papers_lengths() -> None:
    assert span_corruption(512) == 114


def test_lamb_steps_as_far_as_its_parameter_is_long() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight.grad = torch.tensor([1.0, -1.0])
    Lamb([weight], lr=0.1, weight_decay=0.0).step()
    # Adam's first step is the gradient's sign; its norm is made that of the parameter, 5.
    assert torch.allclose(weight.detach(), torch.tensor([3.0, 4.0]) - 0.1 * 5 * torch.tensor([1.0, -1.0]) / 2**0.5, atol=1e-4)


def test_two_ranks_look_up_and_update_what_one_does() -> None:
    _, config = job("dlrm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = Path(__file__).with_name("two_ranks.py")
    commands = [[sys.executable, str(script), str(rank), str(port), json.dumps(config)] for rank in range(2)]
    ranks = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [rank.communicate(timeout=600)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
