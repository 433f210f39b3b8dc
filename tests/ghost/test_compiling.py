"""A capture that compiles nothing imports no compiler, whoever decorates functions with it while it is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

JOBS = {
    "deepspeed": {"engine": "deepspeed", "zero_stage": 3},
    "4 bits": {"method": "qlora"},
}
SCRIPT = """
import sys
from membound.ghost import run
from membound.spec import catalogue
from membound.spec.job import Job
job = Job.model_validate({{"model": "tiny", "data": {{"seq_len": 16}}, "recipe": {{"micro_batch": 1, **{recipe}}}, "gpus": {gpus}}})
trace = run.record(job, dict(catalogue.model(job.model).config), {gpus})
print(len(trace.instructions["kind"]), "torch._inductor.compile_fx" in sys.modules)
"""


@pytest.mark.parametrize(("recipe", "gpus"), [(JOBS["deepspeed"], 2), (JOBS["4 bits"], 1)], ids=list(JOBS))
def test_no_compiler_is_imported(recipe: dict[str, object], gpus: int) -> None:
    script = SCRIPT.format(recipe=recipe, gpus=gpus)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    count, compiler = done.stdout.split()[-2:]
    assert int(count) > 100
    assert compiler == "False"
