"""Each sensor on texts and answers that can be read here: SI units, wrap-arounds, refusals."""

from __future__ import annotations

import errno
import fnmatch
import os
import struct
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.measure import manifest
from membound.measure.doors import open_doors
from membound.measure.learn import learn
from membound.measure.sensors.base import Sensor, Validity
from membound.measure.sensors.dimms import TABLE, dimms
from membound.measure.sensors.doors import Counter, Doors, PmSession
from membound.measure.sensors.files import Files
from membound.measure.sensors.host_bandwidth import HostBandwidth
from membound.measure.sensors.host_cpu import HostCpu
from membound.measure.sensors.host_drives import HostDrives
from membound.measure.sensors.host_memory import HostMemory
from membound.measure.sensors.host_offer import host_sensors
from membound.measure.sensors.host_power import HostPower
from membound.measure.sensors.nvml import Nvml, Refused
from membound.measure.sensors.nvml_energy import NvmlEnergy
from membound.measure.sensors.nvml_fields import NvmlFields
from membound.measure.sensors.offer import offer
from membound.measure.sensors.pm import Pm
from membound.measure.source import Source
from tests.measure.sampling.conftest import H100


class Texts(Files):
    """Files that the test writes. A number instead of a text is the error that reading it gives."""

    def __init__(self, texts: Mapping[str, str | bytes | int]) -> None:
        self.texts = dict(texts)

    def text(self, path: str) -> str:
        found = self.texts.get(path, errno.ENOENT)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found), path)
        assert isinstance(found, str)
        return found

    def data(self, path: str) -> bytes:
        found = self.texts.get(path, errno.ENOENT)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found), path)
        assert isinstance(found, bytes)
        return found

    def find(self, pattern: str) -> Sequence[str]:
        return sorted(path for path in self.texts if fnmatch.fnmatch(path, pattern))


class Counts(Counter):
    """A counter that the test moves."""

    total = 0

    def count(self) -> int:
        return Counts.total

    def close(self) -> None:
        pass


class Host(Doors):
    """A host of texts, with counters or without permission for them."""

    def __init__(self, texts: Mapping[str, str | bytes | int], permitted: bool = True) -> None:
        self._texts = Texts(texts)
        self._permitted = permitted
        self.opened: list[tuple[int, int, int]] = []

    @property
    def files(self) -> Texts:
        return self._texts

    def nvml(self) -> Nvml:
        raise Refused(12)

    def pm(self, gpu: int, every: float) -> PmSession:
        raise RuntimeError

    def counter(self, kind: int, config: int, cpu: int) -> Counter:
        if not self._permitted:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        self.opened.append((kind, config, cpu))
        return Counts()


def value(sensor: Sensor, place: int = 0) -> float:
    number, validity = sensor.read()[place]
    assert validity is Validity.OK
    return number


@pytest.fixture
def clock() -> list[float]:
    """A clock that the test sets: its last entry is now."""
    return [0.0]


def test_cores_in_use() -> None:
    files = Texts({"/proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 ..."})
    sensor = HostCpu(files, 1.0)
    # 300 of 400 ticks were not idle.
    files.texts["/proc/stat"] = "cpu  350 0 150 850 50 0 0 0 0 0\n"
    assert value(sensor) == pytest.approx(300 / 400)
    assert sensor.read() == []


def test_memory_in_use_is_what_cannot_be_had() -> None:
    assert (
        value(HostMemory(Texts({"/proc/meminfo": "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 600 kB\nHugePages_Total: 0\n"}), 1.0)) == 400 * 1024
    )
    assert HostMemory(Texts({}), 1.0).read()[0][1] is Validity.ERROR


def test_drives_are_counted_once_and_memory_is_no_drive(clock: list[float]) -> None:
    row = " 259 0 {} 0 0 {} 0 0 0 {} 0 0 0 0\n"
    texts: dict[str, str | bytes | int] = {f"/sys/block/{name}/size": "1" for name in ("nvme0n1", "loop0", "dm-0", "zram0")}
    files = Texts({**texts, "/proc/diskstats": row.format("nvme0n1", 0, 0)})
    sensor = HostDrives(files, 1.0, lambda: clock[-1])
    clock.append(2.0)
    files.texts["/proc/diskstats"] = "".join(row.format(name, 4000, 8000) for name in ("nvme0n1", "nvme0n1p1", "dm-0", "loop0"))
    assert [answer[0] for answer in sensor.read()] == [4000 * 512 / 2, 8000 * 512 / 2]


def test_package_energy_wraps_around(clock: list[float]) -> None:
    zone = "/sys/class/powercap/intel-rapl:0"
    files = Texts({f"{zone}/name": "package-0\n", f"{zone}/max_energy_range_uj": "999999\n", f"{zone}/energy_uj": "900000\n"})
    sensor = HostPower(files, 1.0, lambda: clock[-1])
    clock.append(0.5)
    files.texts[f"{zone}/energy_uj"] = "100000\n"
    assert value(sensor) == pytest.approx(0.2 / 0.5)
    files.texts[f"{zone}/energy_uj"] = errno.EACCES
    assert sensor.read()[0][1] is Validity.NO_PERMISSION


IMC = "/sys/bus/event_source/devices/uncore_imc_0"
UMC = "/sys/bus/event_source/devices/amd_umc_0"


@pytest.mark.parametrize(
    ("texts", "opened"),
    [
        (
            {f"{IMC}/type": "13\n", f"{IMC}/cpumask": "0,28\n", f"{IMC}/events/cas_count_read": "event=0x05,umask=0xcf\n"},
            [(13, 0xCF05, 0), (13, 0xCF05, 28)],
        ),
        (
            # Granite Rapids counts both halves of a channel apart: both are counted, and the file with the unit is no event.
            {
                f"{IMC}/type": "13\n", f"{IMC}/cpumask": "0\n", f"{IMC}/events/cas_count_read_sch0": "event=0x05,umask=0xcf",
                f"{IMC}/events/cas_count_read_sch1": "event=0x06,umask=0xcf", f"{IMC}/events/cas_count_read_sch0.scale": "6.1e-5",
            },
            [(13, 0xCF05, 0), (13, 0xCF06, 0)],
        ),
        ({f"{UMC}/type": "20\n", f"{UMC}/cpumask": "0\n"}, [(20, 0x10A, 0), (20, 0x20A, 0)]),
    ],
)  # fmt: skip
def test_memory_controllers_count_lines_of_64_bytes(
    clock: list[float], texts: dict[str, str | bytes | int], opened: list[tuple[int, int, int]]
) -> None:
    host = Host(texts)
    Counts.total = 0
    sensor = HostBandwidth(host, 1.0, lambda: clock[-1])
    assert host.opened == opened
    clock.append(1.0)
    Counts.total = 1_000
    assert value(sensor) == 64 * 1_000 * len(opened)


def test_what_is_missing_on_a_host_names_its_cure() -> None:
    zone = "/sys/class/powercap/intel-rapl:0"
    texts: dict[str, str | bytes | int] = {
        f"{UMC}/type": "20\n", f"{UMC}/cpumask": "0\n", f"{zone}/name": "package-0\n", f"{zone}/max_energy_range_uj": "9\n",
        f"{zone}/energy_uj": errno.EACCES,
    }  # fmt: skip
    _, gaps = host_sensors(Host(texts, permitted=False), 1.0)
    cures = {gap.curves[0]: (gap.validity, gap.remedy) for gap in gaps}
    assert cures["memory.bandwidth"][0] is cures["power"][0] is Validity.NO_PERMISSION
    assert "perf_event_paranoid" in cures["memory.bandwidth"][1]
    assert "powercap" in cures["power"][1]


def module(size: int, kind: int = 0x22, rate: int = 5600, set_rate: int = 4400, long_size: int = 0) -> bytes:
    """An SMBIOS structure of type 17 with two strings."""
    body = bytearray(0x28)
    body[0], body[1] = 17, len(body)
    struct.pack_into("<H", body, 0x0C, size)
    body[0x10], body[0x12], body[0x1A], body[0x1B] = 1, kind, 2, 2
    struct.pack_into("<H", body, 0x15, rate)
    struct.pack_into("<I", body, 0x1C, long_size)
    struct.pack_into("<H", body, 0x20, set_rate)
    return bytes(body) + b"DIMM_A1\0PART-1 \0\0"


OTHER = bytes([0, 4, 0, 0]) + b"BIOS\0\0"


def test_modules_are_read_from_the_firmwares_table() -> None:
    table = OTHER + module(0x7FFF, long_size=64 * 1024) + module(0) + module(16 * 1024) + bytes([127, 4, 0, 0, 0, 0])
    found = dimms(Texts({TABLE: table}))
    # An empty slot is no module.
    assert [dimm.nbytes for dimm in found] == [64 * 2**30, 16 * 2**30]
    assert (found[0].slot, found[0].kind, found[0].rate, found[0].set_rate, found[0].ranks, found[0].part) == (
        "DIMM_A1",
        "DDR5",
        5.6e9,
        4.4e9,
        2,
        "PART-1",
    )


@given(st.binary(max_size=200))
def test_a_table_of_anything_is_read_or_refused(table: bytes) -> None:
    try:
        found = dimms(Texts({TABLE: table}))
    except ValueError:
        return
    assert all(dimm.nbytes > 0 for dimm in found)


def test_a_batch_is_one_call_in_si_units() -> None:
    nvml = open_doors(Source(H100)).nvml()
    answers = dict(zip(NvmlFields(nvml, 0, 0.02).card.curves, NvmlFields(nvml, 0, 0.02).read(), strict=True))
    assert 300 < answers["power"][0] < 750
    assert 40 < answers["memory.power"][0] < 200
    ((energy, _),) = NvmlEnergy(nvml, 0, 0.02).read()
    assert energy > 1e6


class Session(PmSession):
    """Intervals that the test hands over."""

    def __init__(self, *batches: list[tuple[int, int, float, float]]) -> None:
        self.batches = list(batches)
        self.closed = 0

    def samples(self) -> list[tuple[int, int, float, float]]:
        return self.batches.pop(0)

    def close(self) -> None:
        self.closed += 1


def test_true_bandwidth_is_bytes_over_the_intervals_own_time() -> None:
    # The first interval is said to begin when the machine was started: it is not counted.
    session = Session(
        [(0, 10**15, 1e9, 1e9)], [(10**15, 10**15 + 20_000_000, 20e9, 10e9), (10**15 + 20_000_000, 10**15 + 40_000_000, 40e9, 20e9)], []
    )
    sensor = Pm(session, open_doors(Source(H100)).nvml(), 0, 0.02)
    assert sensor.read() == ()
    (read, _), (written, _), (share, _) = sensor.read()
    assert (read, written) == (pytest.approx(1.5e12), pytest.approx(0.75e12))
    # H100 SXM: 2619 MHz, two transfers, 5120 bit: 3.35 TB/s.
    assert share == pytest.approx(2.25e12 / 3.352e12, rel=1e-3)
    assert sensor.read() == ()


def test_each_curve_comes_from_one_sensor() -> None:
    found = offer(open_doors(Source(H100, 2)), None, 0.02, 1.0, "pm")
    places = [(each.sensor.card.table, each.sensor.card.key, curve) for each in found.chosen for curve in each.curves]
    assert len(places) == len(set(places))
    gaps = {(gap.table, gap.key, curve) for gap in found.gaps for curve in gap.curves}
    assert not gaps & set(places)
    found.close()


def test_costs_and_periods_are_learned_by_asking() -> None:
    nvml = open_doors(Source(H100)).nvml()
    learned, energy = learn([NvmlFields(nvml, 0, 0.02), NvmlEnergy(nvml, 0, 0.02)], 0.7)
    assert learned.cost > 0
    assert learned.core > 0
    assert energy.periods["energy"] is not None
    assert learned.periods["power"] is not None
    assert 0.08 < learned.periods["power"] < 0.3
    assert learned.periods["temperature.hbm"] is None


def test_a_wall_clock_that_is_set_back_is_seen_and_times_do_not_hang_on_it() -> None:
    second = 10**9
    clocks = [{"monotonic_ns": k * second, "realtime_ns": 1000 * second + k * second - (3600 * second if k >= 3 else 0)} for k in range(6)]
    (step,) = manifest.steps(clocks)
    assert step["seen_monotonic_ns"] == 3 * second
    assert step["by_s"] == pytest.approx(-3600)
    assert manifest.steps([{**clock, "realtime_ns": clock["realtime_ns"] + k * 1000} for k, clock in enumerate(clocks[:3])]) == []
