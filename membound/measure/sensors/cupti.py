"""CUPTI's performance-monitor sampling of one GPU, through cupti-python (extra `counters`).

One session per GPU. It holds the clocks while it runs. The driver must let this user read counters: NVreg_RestrictProfilingToAdminUsers=0, or
CAP_SYS_ADMIN.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final, final

from membound.measure.sensors.doors import PmSample, PmSession

# Both fit one pass on GA100, GH100 and GB100, as NVIDIA's own host library says of those chips (nvidia-cuda-cupti 13.5).
_METRICS: Final = ["dram__bytes_read.sum", "dram__bytes_write.sum"]
# Samples to make room for in one decoding: those that are due, half as many again, and these. Each takes some 18 KiB (pytorch/pytorch#188844).
_ROOM: Final = 8
# 32 MiB on the GPU hold minutes of samples of two metrics; the library's own choice, 512 MiB, would be taken from the job.
_BUFFER: Final = 32 * 1024 * 1024


@final
class CuptiSession(PmSession):
    """Sampling by time. GA100 has no trigger by time: `ValueError` there, as CUPTI says."""

    def __init__(self, gpu: int, every: float) -> None:
        # Numbers as NVML has them, whatever the job was given to see.
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        from cupti import cupti, pm_sampling

        self._error: type[Exception] = cupti.cuptiError
        _initialise_cuda()
        self._collector: Any = pm_sampling.Collector(gpu)
        self._every = every
        self._decoded = time.monotonic()
        try:
            self._start(pm_sampling, every)
        except self._error as error:
            raise RuntimeError(str(error)) from None

    def _start(self, pm_sampling: Any, every: float) -> None:
        self._collector.enable()
        try:
            self._collector.configure(
                metrics=_METRICS, hardware_buffer_size=_BUFFER, sampling_interval=int(every * 1e9),
                trigger_mode=pm_sampling.TriggerMode.GPU_TIME_INTERVAL, hw_buffer_append_mode=pm_sampling.HardwareBufferAppendMode.KEEP_LATEST,
            )  # fmt: skip
            self._collector.start()
        except BaseException:
            self._collector.disable()
            raise

    def samples(self) -> list[PmSample]:
        now = time.monotonic()
        due, self._decoded = int((now - self._decoded) / self._every), now
        try:
            data = self._collector.decode(due + due // 2 + _ROOM)
            return [(each.start_timestamp, each.end_timestamp, each.metric_values[0], each.metric_values[1]) for each in data]
        except (self._error, MemoryError) as error:
            raise RuntimeError(str(error)) from None

    def close(self) -> None:
        try:
            self._collector.stop()
        finally:
            # Once only: a second time ends the process (pytorch/pytorch#188844).
            self._collector.disable()


def _initialise_cuda() -> None:
    from cuda.bindings import driver

    status = driver.cuInit(0)[0]
    if int(status) != 0:
        raise RuntimeError(f"CUDA does not start: {status}")
