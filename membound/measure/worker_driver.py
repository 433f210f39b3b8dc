"""What the driver says of the memory of one rank's GPU, asked at the moment: the sampler reads it seldom where the call is slow."""

from __future__ import annotations


def used_memory(uuid: str) -> int | None:
    """Memory in use on the GPU `uuid`, without what the driver keeps back, B; None where the driver or its Python package does not say."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).used)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
