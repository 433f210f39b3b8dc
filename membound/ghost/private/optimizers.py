"""Optimizers: multi-tensor kernels where PyTorch would not pick them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from membound.ghost.private.fakes import FakeTensor


def allow_multi_tensor_optimizers() -> None:
    """PyTorch picks multi-tensor kernels for plain parameters on listed devices; the ghost is listed, its parameters' type is not."""
    from torch.optim import optimizer
    from torch.utils import _foreach_utils

    for types in (_foreach_utils._foreach_supported_types, optimizer._foreach_supported_types):
        if FakeTensor not in types:
            types.append(FakeTensor)


@contextmanager
def multi_tensor_on(device: str) -> Iterator[None]:
    """Optimizers pick multi-tensor kernels on `device` as well, where they exist but are not the default: on the CPU."""
    from torch.optim import optimizer

    original = optimizer._get_foreach_kernels_supported_devices
    optimizer._get_foreach_kernels_supported_devices = lambda: [*original(), device]
    try:
        yield
    finally:
        optimizer._get_foreach_kernels_supported_devices = original
