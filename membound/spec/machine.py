"""The Machine: what a Job runs on. Every value is SI inside; files and the command line may write units ('2619 MHz', '80 GiB')."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from membound.errors import InputError
from membound.spec.fields import Bits, Bytes, BytesPerSecond, Celsius, Count, FlopPerSecond, Hertz, Quantity, Spec, TransfersPerSecond, Watts

UNSOURCED = "given by the user"

Architecture = Literal["pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell", "cdna3"]
DType = Literal["bf16", "fp16", "tf32", "fp32", "fp8", "int8", "fp64"]


class Clock(Spec):
    """Core clocks of a GPU."""

    base: Hertz | None = None
    """Guaranteed core clock under the board's power limit, Hz; null where the maker publishes none."""
    boost: Hertz
    """Core clock at which the data sheet states its peaks, Hz."""
    max: Hertz
    """Highest core clock that the driver lists, Hz."""
    source: str = UNSOURCED
    """Where these values come from."""


class Hbm(Spec):
    """The GPU's own memory, be it stacked (HBM) or discrete (GDDR): capacity, clock, bus."""

    kind: Literal["HBM2", "HBM2e", "HBM3", "HBM3e", "GDDR5", "GDDR5X", "GDDR6", "GDDR6X", "GDDR7"]
    """Memory technology."""
    stacks: Count
    """Stacks of HBM that are in use, or discrete GDDR devices."""
    stack_capacity: Bytes
    """Capacity of one stack or device, B."""
    capacity: Bytes
    """Total that the driver reports (nvidia-smi memory.total), B; less than stacks x stack_capacity where some is held back."""
    bus_width: Bits
    """Data bus between GPU and memory, bit."""
    clock: Hertz
    """Memory clock as the driver reports it, Hz."""
    transfers_per_clock: Count = 2
    """Data transfers on each wire per clock, 1."""
    max_temperature: Celsius
    """Highest operating temperature of the memory, degC."""
    datasheet_bandwidth: BytesPerSecond | None = None
    """Bandwidth that the data sheet prints at the stock clock, B/s; a check on clock and bus, never used to predict."""
    source: str = UNSOURCED
    """Where these values come from."""

    @property
    def bandwidth(self) -> float:
        """Peak bandwidth at the present clock, B/s."""
        return self.clock * self.transfers_per_clock * self.bus_width / 8


class Peaks(Spec):
    """Dense peak rates at `Clock.boost`, without sparsity; tensor cores with FP32 accumulation where the type has them."""

    bf16: FlopPerSecond | None = None
    """bfloat16, FLOP/s; null: not offered."""
    fp16: FlopPerSecond | None = None
    """IEEE half precision, FLOP/s; null: not offered."""
    tf32: FlopPerSecond | None = None
    """TF32, FLOP/s; null: not offered."""
    fp32: FlopPerSecond
    """Single precision outside the tensor cores, FLOP/s."""
    fp8: FlopPerSecond | None = None
    """8-bit floating point, FLOP/s; null: not offered."""
    int8: FlopPerSecond | None = None
    """8-bit integer, operations/s; null: not offered."""
    fp64: FlopPerSecond | None = None
    """Double precision, the faster of vector and tensor cores, FLOP/s; null: not offered."""
    source: str = UNSOURCED
    """Where these values come from."""

    def of(self, dtype: DType) -> float:
        """Peak rate of `dtype` at `Clock.boost`, FLOP/s. Raises `InputError` where the GPU does not offer it."""
        rates: dict[DType, float | None] = {
            "bf16": self.bf16, "fp16": self.fp16, "tf32": self.tf32, "fp32": self.fp32, "fp8": self.fp8, "int8": self.int8, "fp64": self.fp64,
        }  # fmt: skip
        rate = rates[dtype]
        if rate is None:
            offered = ", ".join(name for name, value in rates.items() if value is not None)
            raise InputError("machine.gpu.peaks", dtype, f"this GPU offers {offered}")
        return rate


class Power(Spec):
    """Electrical power of the board."""

    limit: Watts
    """Board power limit, W."""
    idle: Annotated[float, Quantity("W", zero=True)]
    """Draw with nothing running and memory clocks up, W."""
    source: str = UNSOURCED
    """Where these values come from."""


class Temperature(Spec):
    """Limits of the GPU die."""

    max_operating: Celsius
    """Highest die temperature in normal operation, degC."""
    shutdown: Celsius
    """Die temperature at which the board shuts down, degC."""
    source: str = UNSOURCED
    """Where these values come from."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.shutdown < self.max_operating:
            raise ValueError(f"shutdown ({self.shutdown:g} degC) must not lie below max_operating ({self.max_operating:g} degC)")
        return self


class Gpu(Spec):
    """One GPU as software sees it."""

    name: str
    """Catalogue name, or any name for a GPU of one's own."""
    architecture: Architecture
    """Family of the design."""
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d$")]
    """Version that PyTorch reports, major.minor."""
    sms: Count
    """Streaming multiprocessors (compute units on AMD) that are enabled."""
    l2: Bytes
    """Last cache in front of the memory, B."""
    clock: Clock
    """Core clocks."""
    hbm: Hbm
    """Memory."""
    peaks: Peaks
    """Dense peak rates by data type."""
    power: Power
    """Power limit and idle draw."""
    temperature: Temperature
    """Limits of the die."""
    source: str = UNSOURCED
    """Where sms, l2 and compute_capability come from."""


class Pcie(Spec):
    """The link between a GPU and its host."""

    kind: Literal["PCIe", "NVLink-C2C"] = "PCIe"
    """What the link is."""
    generation: Annotated[int, Field(strict=True, ge=1, le=7)]
    """PCIe generation."""
    lanes: Annotated[int, Field(strict=True, ge=1, le=32)]
    """PCIe lanes per GPU."""
    bandwidth: BytesPerSecond
    """Line rate after encoding of the link (of the shared uplink, where shared), per direction, B/s."""
    shared_by: Count = 1
    """GPUs that share this bandwidth on their way to the host."""


class Links(Spec):
    """Links between GPUs, to the host and between nodes."""

    nvlink: BytesPerSecond | None = None
    """Bandwidth of all NVLinks of a GPU together, per direction, B/s; null: GPUs speak over PCIe."""
    nvswitch: bool = False
    """Whether every pair of GPUs reaches the full NVLink bandwidth through switches."""
    pcie: Pcie
    """Link to the host."""
    network: BytesPerSecond | None = None
    """Network between nodes, per GPU and direction, B/s; null: the machine has one node only."""
    source: str = UNSOURCED
    """Where these values come from."""


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
    call_time: Annotated[float, Field(gt=0, le=100)] = 0.45
    """What a call of Python, PyTorch or the driver takes over its time on the host that the shipped profiles were measured on, 1.

    That host was a virtual machine. Module calls and views take 0.36 to 0.49 of its least times on a server without one (our own readings:
    0.62 and 1.13 us on an AMD EPYC at 2.6 GHz, 1.73 and 2.29 us there); other servers lie within a factor of 1.5.
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


class Machine(Spec):
    """What a Job runs on: like nodes, each of a host and like GPUs."""

    name: str
    """Catalogue name, or any name for a machine of one's own."""
    nodes: Count = 1
    """Nodes."""
    gpus: Count
    """GPUs in a node."""
    gpu: Gpu
    """Each of the GPUs."""
    links: Links
    """Links between GPUs, host and nodes."""
    host: Host
    """Host of a node."""
    source: str = UNSOURCED
    """What this machine stands for."""

    @model_validator(mode="after")
    def _nodes_are_joined(self) -> Self:
        if self.nodes > 1 and self.links.network is None:
            raise ValueError(f"{self.nodes} nodes need links.network, the bandwidth between them")
        return self

    @property
    def total_gpus(self) -> int:
        """GPUs over all nodes."""
        return self.nodes * self.gpus

    def with_gpus(self, count: int) -> Machine:
        """The machine that a Job of `count` GPUs uses: part of one node, or as many whole nodes as it takes. Raises `InputError`."""
        if count <= 0 or (count > self.gpus and count % self.gpus):
            raise InputError("gpus", count, f"write 1 to {self.gpus}, or a multiple of {self.gpus} for more nodes of {self.name}")
        if count > self.gpus and self.links.network is None:
            raise InputError("gpus", count, f"{self.name} has {self.gpus} and no network to more nodes: set machine.links.network")
        return self.model_copy(update={"gpus": min(count, self.gpus), "nodes": max(count // self.gpus, 1)})
