"""How many steps come before those that tell of a long run."""

from __future__ import annotations

from membound.measure.plan import WARM_UP
from membound.spec.job import Job
from membound.spec.lengths import ROWS


def steps(job: Job) -> int:
    """Optimizer steps of `job` after which the later ones are like each other.

    The first few make optimizer states and choose kernels. Where stored row lengths differ, libraries build an execution graph for each length when
    they first meet it: cuDNN's attention takes 0.1 s or more for each, forward and backward (the first 128 steps of `llama-7b-lora-alpaca-4` in
    validation/h200/series-4.tar). Fine-tuning is done with that after some hundreds of its thousands of steps, a measurement after one round
    of the rows. Of a user's own rows it is not known how many there are without reading them: the first few it is.
    """
    if job.data.lengths is None:
        return WARM_UP
    recipe = job.recipe
    return max(WARM_UP, -(-ROWS // (recipe.micro_batch * recipe.accumulation * job.gpus)))
