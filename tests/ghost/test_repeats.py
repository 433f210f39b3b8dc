"""What a capture makes and writes without asking PyTorch: the same tensors as PyTorch's own, and most of all rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from membound.ghost.servers import USUAL, imports
from membound.spec.job import Job
from tests.prepared import Prepared

PREPARATION = "import membound.ghost.run, membound.programs.causal_lm, membound.spec.catalogue"

TENSORS = """
import json, sys
import torch
from membound.ghost import device
from membound.ghost.private.fakes import FakeTensor, Makes, fake_mode
from membound.ghost.private.operators import register_device

HELD = ("constant", "real_tensor", "pytype", "dispatch_keys", "fake_mode", "nonzero_memo", "item_memo", "unique_memo", "nested_int_memo")

def facts(tensor):
    try:
        tensor.data_ptr()
        pointer = "given"
    except Exception as error:
        pointer = type(error).__name__
    told = [str(vars(tensor).get(name, getattr(tensor, name))) for name in HELD]
    layout = [list(tensor.shape), list(tensor.stride()), tensor.storage_offset(), str(tensor.dtype), tensor.untyped_storage().nbytes()]
    flags = [tensor.requires_grad, tensor.is_leaf, tensor._is_view(), tensor.is_contiguous(), tensor.is_inference()]
    return [type(tensor).__name__, str(tensor.device), torch._C._dispatch_keys(tensor).raw_repr(), pointer, *told, *layout, *flags]

register_device(device.NAME, device.Backend())
mode, found = fake_mode(), []
makes = Makes(mode)
with mode, torch.no_grad():
    for where in (torch.device(device.NAME, 0), torch.device("cpu")):
        theirs = torch.empty_strided((4, 6), (6, 1), dtype=torch.bfloat16, device=where)
        # The first on a device is made by PyTorch, those after it are not.
        ours = [makes.new((4, 6), (6, 1), torch.bfloat16, where) for _ in range(3)]
        found += [[facts(theirs), facts(made)] for made in ours]
        parameter = torch.nn.Parameter(torch.empty(4, 6, device=where))
        for base in (theirs, ours[-1], parameter):
            part = makes.view(base, (2, 6), (6, 1), 6)
            assert part.untyped_storage()._cdata == base.untyped_storage()._cdata
            found += [[facts(base.detach()[1:3].detach()), facts(part)]]
print(json.dumps(found))
"""

COUNTS = """
import gc, json, sys
gc.disable()
import membound.ghost.recorder as recorder
from membound.ghost import run
from membound.spec.catalogue import model
from membound.spec.job import Job

counts = {"_repeat": 0, "_record": 0}
for name in counts:
    def counted(self, *args, name=name, original=getattr(recorder.Recorder, name)):
        counts[name] += 1
        return original(self, *args)
    setattr(recorder.Recorder, name, counted)
job = Job.model_validate({"model": "tiny", "data": {"seq_len": 24}, "recipe": {"accumulation": 3}})
run.record(job, model("tiny").config, 1)
print(json.dumps(counts))
"""


@pytest.fixture(scope="module")
def prepared() -> Iterator[Prepared]:
    found = Prepared(PREPARATION, os.environ)
    yield found
    found.close()


def test_tensors_are_those_that_pytorch_makes(prepared: Prepared) -> None:
    done = prepared.run(TENSORS)
    assert done.returncode == 0, done.stderr
    pairs = json.loads(done.stdout)
    assert len(pairs) == 12
    for theirs, ours in pairs:
        is_view = len(theirs) - 3
        # Autograd says what is a view of what, above the level at which tensors are made.
        assert theirs[:is_view] + theirs[is_view + 1 :] == ours[:is_view] + ours[is_view + 1 :]


def test_most_operators_are_written_from_memory(prepared: Prepared) -> None:
    done = prepared.run(COUNTS)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["_repeat"] > 2 * counts["_record"] > 0


def test_a_server_imports_what_the_job_will() -> None:
    def of(**recipe: object) -> set[str]:
        job = {"model": "tiny", "data": {"seq_len": 8}, "recipe": recipe, "gpus": 2 if "engine" in recipe else 1}
        return set(imports(Job.model_validate(job))) - set(USUAL)

    assert of() == set()
    assert of(engine="deepspeed", zero_stage=1) == {"deepspeed"}
    # PEFT and bitsandbytes make tensors while they are imported: that is left to the child.
    assert of(method="lora") == of(optimizer="adafactor") == set()
