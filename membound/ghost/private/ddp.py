"""DDP on a fake process group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def trusting_ddp() -> None:
    """Let DDP's own reducer run on a fake process group.

    It compares parameter shapes among ranks by reading real numbers: the ghost's ranks are alike by construction. And it reads the
    reduced bucket out of the collective's future, where a fake one holds nothing: a hook all-reduces the bucket and hands it back.
    """
    import torch.distributed as dist
    import torch.nn.parallel.distributed as ddp

    _all_reduce_bucket.__annotations__ = {"bucket": vars(dist)["GradBucket"]}  # DDP insists on the class itself
    ddp._verify_param_shape_across_processes = lambda *args, **kwargs: None
    ddp._sync_module_states = lambda *args, **kwargs: None
    # After the first step DDP makes its buckets anew, by indices that all ranks agree on; the ghost's are at once what they become then.
    torch._C._distributed_c10d.Reducer._rebuild_buckets = lambda self: False
    dist._compute_bucket_assignment_by_size = _rebuilt_buckets(dist._compute_bucket_assignment_by_size)
    original = ddp.DistributedDataParallel.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.register_comm_hook(None, _all_reduce_bucket)

    ddp.DistributedDataParallel.__init__ = init


def _rebuilt_buckets(assign: Callable[..., Any]) -> Callable[..., Any]:
    """DDP's assignment of parameters to buckets. It begins with one for all; from the second step on they follow the order in which gradients
    come, which is that of the parameters from last to first, and hold what DDP's defaults say: the first 1 MiB, each other 25 MiB."""
    import torch.distributed as dist

    limits = [int(dist._DEFAULT_FIRST_BUCKET_BYTES), 25 * 2**20]  # torch/nn/parallel/distributed.py, bucket_cap_mb

    def run(parameters: list[torch.Tensor], asked: list[int], sparse: list[bool], *args: Any) -> Any:
        if len(asked) > 1 or sum(p.numel() * p.element_size() for p in parameters) <= limits[0]:
            return assign(parameters, asked, sparse, *args)
        last = len(parameters) - 1
        buckets, sizes = assign(parameters[::-1], limits, sparse[::-1], *args)
        return [[last - i for i in bucket] for bucket in reversed(buckets)], sizes[::-1]

    return run


def _all_reduce_bucket(state: Any, bucket: Any) -> Any:
    import torch.distributed as dist

    dist.all_reduce(bucket.buffer(), async_op=True)
    future: Any = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future
