"""The Machine: units at its border, a bandwidth that follows the clock, and one clear error for each mistake."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import ValidationError

from membound.errors import InputError, UnitError
from membound.spec import catalogue, fields
from membound.spec.fields import Quantity, Spec
from membound.spec.host import Host
from membound.spec.machine import Machine


@pytest.fixture(scope="module")
def hgx() -> Machine:
    return catalogue.machine("hgx-h100")


def changed(machine: Machine, **changes: object) -> Machine:
    return fields.with_values(machine, {key.replace("__", "."): value for key, value in changes.items()}, "machine")


def refusal(machine: Machine, **changes: object) -> InputError:
    with pytest.raises(InputError) as caught:
        changed(machine, **changes)
    return caught.value


class TestReportedMachine:
    """The system under test of 'A memory perspective', Tables 1 and 2."""

    def test_gpus(self, hgx: Machine) -> None:
        assert (hgx.gpus, hgx.nodes, hgx.total_gpus) == (8, 1, 8)
        assert (hgx.gpu.clock.max, hgx.gpu.hbm.clock, hgx.gpu.power.limit) == (1980e6, 2619e6, 700)
        assert (hgx.gpu.temperature.max_operating, hgx.gpu.temperature.shutdown, hgx.gpu.hbm.max_temperature) == (87, 92, 95)
        assert 8 * hgx.gpu.hbm.bandwidth == pytest.approx(27e12, rel=0.01)

    def test_links(self, hgx: Machine) -> None:
        assert hgx.links.nvswitch
        assert hgx.links.nvlink == 450e9

    def test_host(self, hgx: Machine) -> None:
        host = hgx.host
        assert (host.sockets, host.cores_per_socket, host.channels, host.dimms_per_channel) == (2, 48, 16, 2)
        assert host.capacity == 2 * 2**40
        assert host.speed == 4400e6
        assert host.bandwidth == pytest.approx(16 * 8 * 4400e6)


class TestBandwidth:
    @pytest.mark.parametrize(("clock", "bandwidth"), [("2619 MHz", 3.352e12), ("1593 MHz", 2.039e12)])
    def test_follows_the_clock(self, hgx: Machine, clock: str, bandwidth: float) -> None:
        assert changed(hgx, gpu__hbm__clock=clock).gpu.hbm.bandwidth == pytest.approx(bandwidth, rel=1e-3)

    @pytest.mark.parametrize("name", catalogue.machines())
    def test_grows_with_clock_and_bus(self, name: str) -> None:
        machine = catalogue.machine(name)
        hbm = machine.gpu.hbm
        by_clock = [changed(machine, gpu__hbm__clock=hbm.clock * factor).gpu.hbm.bandwidth for factor in (0.5, 0.9, 1.0, 1.1, 2.0)]
        assert by_clock == sorted(set(by_clock))
        assert changed(machine, gpu__hbm__bus_width=2 * hbm.bus_width).gpu.hbm.bandwidth == 2 * hbm.bandwidth


class TestHostMemory:
    """Speed and bandwidth follow the modules per channel."""

    def host(self, hgx: Machine, count: int) -> Host:
        return changed(hgx, host__dimms__count=count).host

    def test_one_module_per_channel_is_faster(self, hgx: Machine) -> None:
        assert self.host(hgx, 16).speed == 4800e6
        assert self.host(hgx, 16).bandwidth > self.host(hgx, 32).bandwidth
        assert self.host(hgx, 16).capacity < self.host(hgx, 32).capacity

    def test_the_fullest_channel_sets_the_speed(self, hgx: Machine) -> None:
        assert self.host(hgx, 17).speed == 4400e6

    def test_empty_channels_bring_no_bandwidth(self, hgx: Machine) -> None:
        assert self.host(hgx, 8).bandwidth == self.host(hgx, 16).bandwidth / 2

    def test_three_per_channel_are_refused(self, hgx: Machine) -> None:
        error = refusal(hgx, host__dimms__count=33)
        assert error.field == "machine.host"
        assert "more than two per channel" in str(error)


class TestNumberOfGpus:
    def test_part_of_a_node(self, hgx: Machine) -> None:
        part = hgx.with_gpus(3)
        assert (part.gpus, part.nodes) == (3, 1)

    def test_more_nodes(self, hgx: Machine) -> None:
        cluster = hgx.with_gpus(512)
        assert (cluster.gpus, cluster.nodes, cluster.total_gpus) == (8, 64, 512)

    @pytest.mark.parametrize("count", [-8, 0, 12])
    def test_odd_counts_are_refused(self, hgx: Machine, count: int) -> None:
        with pytest.raises(InputError, match="multiple of 8"):
            hgx.with_gpus(count)

    def test_no_network_no_nodes(self, hgx: Machine) -> None:
        with pytest.raises(InputError, match="network"):
            catalogue.machine("h100-sxm").with_gpus(8)
        assert "links.network" in str(refusal(hgx, nodes=2, links__network=None))


class TestQuantities:
    @pytest.mark.parametrize("text", ["2619 MHz", "2.619GHz", 2.619e9, "2619e6"])
    def test_reads_units_and_bare_si(self, hgx: Machine, text: object) -> None:
        assert changed(hgx, gpu__hbm__clock=text).gpu.hbm.clock == pytest.approx(2.619e9, rel=1e-12)

    @pytest.mark.parametrize("bad", ["fast", "2619 MB", "-1 MHz", 0, True, None, [1], {}, math.nan, math.inf, 10**400, "1e999 Hz"])
    def test_refuses_the_rest_naming_the_field(self, hgx: Machine, bad: object) -> None:
        error = refusal(hgx, gpu__hbm__clock=bad)
        assert isinstance(error, UnitError)
        assert str(error).startswith("machine.gpu.hbm.clock: ")

    def test_zero_where_it_makes_sense(self, hgx: Machine) -> None:
        assert changed(hgx, gpu__power__idle="0 W").gpu.power.idle == 0

    def test_serves_any_model(self) -> None:
        class Drive(Spec):
            speed: Annotated[float, Quantity("B/s")]

        assert fields.read(Drive, {"speed": "7 GB/s"}).speed == 7e9


class TestMistakes:
    """Each mistake is one `InputError` of one line: field, value, cure."""

    def test_unknown_key_names_the_nearest(self, hgx: Machine) -> None:
        error = refusal(hgx, gpu__hbm__clok="1593 MHz")
        assert str(error) == "machine.gpu.hbm.clok: '1593 MHz': unknown key; did you mean clock?"

    def test_unknown_key_goes_before_the_missing_one(self) -> None:
        class Box(Spec):
            width: int
            """Width, m."""

        with pytest.raises(InputError, match=r"^box\.widht: 3: unknown key; did you mean width\?$"):
            fields.read(Box, {"widht": 3}, "box")
        with pytest.raises(InputError, match=r"^width: None: must be given \(Width, m\.\)$"):
            fields.read(Box, {})

    def test_unknown_part(self, hgx: Machine) -> None:
        assert str(refusal(hgx, gpu__hmb__clock="1 GHz")) == "machine.gpu.hmb: 'a dict': unknown key; did you mean hbm?"

    def test_a_value_has_no_parts(self, hgx: Machine) -> None:
        assert refusal(hgx, gpus__count=8).field == "machine.gpus.count"

    def test_choices(self, hgx: Machine) -> None:
        assert str(refusal(hgx, gpu__architecture="hoper")) == "machine.gpu.architecture: 'hoper': not one of the choices; did you mean hopper?"

    def test_unions_leave_no_trace_in_the_path(self) -> None:
        class Left(Spec):
            depth: Annotated[float, Quantity("B")]

        class Either(Spec):
            side: Left | list[Left] | None = None
            targets: Literal["all"] | list[str] = "all"

        with pytest.raises(InputError) as caught:
            fields.read(Either, {"side": {"depth": "deep"}}, "job")
        assert caught.value.field == "job.side.depth"
        with pytest.raises(InputError) as caught:
            fields.read(Either, {"side": [{"depht": 1}]}, "job")
        assert caught.value.field == "job.side.0.depht"
        assert "did you mean depth?" in str(caught.value)
        with pytest.raises(InputError) as caught:
            fields.read(Either, {"targets": "al"}, "job")
        assert str(caught.value) == "job.targets: 'al': not one of the choices; did you mean all?"

    @pytest.mark.parametrize("count", [0, -1, 2.5, True, "many", 10**400])
    def test_counts_are_whole_and_positive(self, hgx: Machine, count: object) -> None:
        assert refusal(hgx, gpus=count).field == "machine.gpus"

    @pytest.mark.parametrize("whole", [None, [], "hgx", 3])
    def test_not_a_mapping(self, whole: object) -> None:
        with pytest.raises(InputError, match=r"^machine: .*mapping"):
            fields.read(Machine, whole, "machine")

    def test_shutdown_below_operation(self, hgx: Machine) -> None:
        assert "must not lie below" in str(refusal(hgx, gpu__temperature__shutdown="20 degC"))

    def test_endless_values_are_not_printed(self, hgx: Machine) -> None:
        bomb: list[Any] = []
        for _ in range(60):
            bomb = [bomb] * 9
        assert len(str(refusal(hgx, gpu__name=bomb))) < 200

    def test_endless_keys_are_cut(self, hgx: Machine) -> None:
        assert len(str(refusal(hgx, **{"gpu__" + "x" * 100_000: 1}))) < 400

    def test_peaks_that_are_not_offered(self) -> None:
        peaks = catalogue.machine("a100-sxm-80gb").gpu.peaks
        assert peaks.of("bf16") == 312e12
        with pytest.raises(InputError, match="offers bf16, fp16, tf32, fp32, int8, fp64"):
            peaks.of("fp8")


class TestValues:
    def test_are_immutable(self, hgx: Machine) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            hgx.gpu.hbm.clock = 1.0

    def test_changes_leave_the_original(self, hgx: Machine) -> None:
        before = hgx.model_dump()
        changed(hgx, gpu__hbm__clock="1593 MHz", host__nvme=None)
        assert hgx.model_dump() == before

    def test_a_part_may_be_added_to_an_empty_one(self) -> None:
        lone = catalogue.machine("h100-sxm")
        assert lone.host.nvme is None
        error = refusal(lone, host__nvme__count=2)
        assert (error.field, error.value) == ("machine.host.nvme.capacity", None)

    @pytest.mark.parametrize("name", catalogue.machines())
    def test_round_trip(self, name: str) -> None:
        machine = catalogue.machine(name)
        assert Machine.model_validate(machine.model_dump()) == machine
        assert Machine.model_validate(json.loads(machine.model_dump_json())) == machine
        assert Machine.model_validate(yaml.safe_load(yaml.safe_dump(machine.model_dump()))) == machine
