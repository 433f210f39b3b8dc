"""The host of a Machine's node: processors, memory modules, local drives."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from membound.spec.fields import UNSOURCED, Bits, Bytes, BytesPerSecond, Count, Hertz, Spec, TransfersPerSecond


class Dimms(Spec):
    """The host's memory modules, all alike."""

    capacity: Bytes
    """Capacity of one module, B."""
    count: Count
    """Modules in a node, over all sockets."""
    kind: Literal["RDIMM", "3DS RDIMM", "LRDIMM", "UDIMM", "LPDDR5X"]
    """Module type."""
    speed_1dpc: TransfersPerSecond
    """Speed with one module per channel, T/s."""
    speed_2dpc: TransfersPerSecond
    """Speed with two modules per channel, T/s."""
    source: str = UNSOURCED
    """Where these values come from."""


class Nvme(Spec):
    """Local drives of a node, all alike."""

    count: Count
    """Drives in a node."""
    capacity: Bytes
    """Capacity of one drive, B."""
    read: BytesPerSecond
    """Sequential read of one drive, B/s."""
    write: BytesPerSecond
    """Sequential write of one drive, B/s."""
    source: str = UNSOURCED
    """Where these values come from."""


PLAIN_SERVER: Final = 0.45
"""Time of a call on a server without a virtual machine over that on the host of the profiles that ship, 1: see `Host.call_time`."""
CALIBRATED: Final = 1.0
"""The same over the prices of a profile made on the host itself."""


class Host(Spec):
    """The host of one node: processors and memory."""

    cpu: str
    """Processor name."""
    sockets: Count
    """Processors in a node."""
    cores_per_socket: Count
    """Physical cores of one processor."""
    numa_per_socket: Count = 1
    """NUMA nodes that one processor shows, each with its share of the memory channels: AMD's NPS setting, Intel's sub-NUMA clusters."""
    threads_per_rank: Count | None = None
    """OpenMP threads of each rank for its work on host tensors; null: its share of the cores, as under DeepSpeed's own launcher.

    torchrun and accelerate launch set OMP_NUM_THREADS to 1 where the user has not set it.
    """
    clock: Hertz
    """Sustained core clock of the processor, Hz."""
    l3: Bytes
    """Last-level cache of one processor, B."""
    call_time: Annotated[float, Field(gt=0, le=100)] | None = None
    """What a call of Python, PyTorch or the driver takes over its time in the GPU's profile, 1; null: 0.45 with a profile that ships, 1 with one
    that `membound calibrate` has made, on its own host.

    The prices of profiles that ship are those of a virtual machine. Module calls and views take 0.36 to 0.49 of its least times on a server without
    one (our own readings: 0.62 and 1.13 us on an AMD EPYC at 2.6 GHz, 1.73 and 2.29 us there); other servers lie within a factor of 1.5.
    """
    channels_per_socket: Count
    """Memory channels of one processor."""
    channel_width: Bits = 64
    """Data width of a channel, bit."""
    dimms: Dimms
    """Memory modules."""
    nvme: Nvme | None = None
    """Local drives; null: none."""
    source: str = UNSOURCED
    """Where these values come from."""

    @model_validator(mode="after")
    def _fits_the_board(self) -> Self:
        if self.dimms_per_channel > 2:
            raise ValueError(f"dimms.count: {self.dimms.count} modules in {self.channels} channels is more than two per channel")
        return self

    @property
    def channels(self) -> int:
        """Memory channels of the node."""
        return self.sockets * self.channels_per_socket

    @property
    def numa_nodes(self) -> int:
        """NUMA nodes of the whole node."""
        return self.sockets * self.numa_per_socket

    def cores_of(self, ranks: int) -> float:
        """Cores with which each of `ranks` works on host tensors."""
        share = max(self.sockets * self.cores_per_socket / max(ranks, 1), 1.0)
        return share if self.threads_per_rank is None else min(share, float(self.threads_per_rank))

    @property
    def dimms_per_channel(self) -> int:
        """Modules in the fullest channel: it sets the speed of them all."""
        return math.ceil(self.dimms.count / self.channels)

    @property
    def speed(self) -> float:
        """Transfers per second on each channel, as populated, T/s."""
        return self.dimms.speed_1dpc if self.dimms_per_channel == 1 else self.dimms.speed_2dpc

    @property
    def capacity(self) -> float:
        """Memory of the node, B."""
        return self.dimms.capacity * self.dimms.count

    @property
    def bandwidth(self) -> float:
        """Peak memory bandwidth of the node, B/s; empty channels bring none."""
        return min(self.channels, self.dimms.count) * self.speed * self.channel_width / 8
