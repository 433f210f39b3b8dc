"""Recorded machines: a file of tracks, replayed below the sensors; recording what is replayed gives the same machine again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.errors import RecordError, UnknownNameError
from membound.measure.doors import open_doors
from membound.measure.recorded import probes, recorder, synthetic, tracks
from membound.measure.recorded.tracks import Track, entry, load
from membound.measure.sensors.nvml import NOT_SUPPORTED, STATIC_CALLS
from membound.measure.source import Fault, Source
from tests.measure.sampling.conftest import H100


def test_the_file_that_ships_is_what_its_program_makes(tmp_path: Path) -> None:
    tracks.save(synthetic.synthetic(), tmp_path / "made")
    assert load(str(tmp_path / "made")).tracks.keys() == load(H100).tracks.keys()
    for place, track in load(str(tmp_path / "made")).tracks.items():
        assert vars(track) == vars(load(H100).tracks[place])


def test_what_is_made_up_says_so() -> None:
    machine = load(H100)
    assert machine.synthetic
    assert "Synthetic" in machine.about
    nvml = open_doors(Source(H100)).nvml()
    assert "synthetic" in nvml.ask("name", 0)


@pytest.mark.parametrize("name", tracks.names())
def test_every_machine_that_ships_tells_what_it_is(name: str) -> None:
    machine = load(name)
    assert machine.about
    assert {call for call, gpu, _ in machine.tracks if gpu == 0} >= set(STATIC_CALLS)


@given(time=st.floats(0, 100), value=st.integers(-5, 5))
def test_a_counter_never_runs_backwards_where_the_recording_is_repeated(time: float, value: int) -> None:
    track = Track(entry("field", 0, [[0.0, 0, value], [1.0, 0, value + 2], [3.0, 0, value + 5]], [83, 0], counter=True), 4.0)
    assert track.at(time + 0.5)[1] >= track.at(time)[1]
    assert track.at(time + 4.0)[1] == track.at(time)[1] + 5


@given(begin=st.floats(0, 20), length=st.floats(0.01, 20))
def test_the_mean_of_a_track_lies_within_it_and_is_exact_over_whole_rounds(begin: float, length: float) -> None:
    track = Track(entry("gpm", 0, [[0.0, 0, 1.0], [1.0, 0, 4.0]], 10), 3.0)
    code, mean = track.mean(begin, begin + length)
    assert code == 0
    assert 1.0 - 1e-9 <= mean <= 4.0 + 1e-9
    assert track.mean(begin, begin + 3.0)[1] == pytest.approx(3.0)


def test_what_is_recorded_from_a_replay_is_the_same_machine(tmp_path: Path) -> None:
    path = recorder.record(open_doors(Source(H100)), "again", "A replay.", 1.0, tmp_path)
    again, first = load(str(path)), load(H100)
    assert not again.synthetic
    for (call, gpu, argument), track in again.tracks.items():
        if call in STATIC_CALLS:
            assert track.at(0.0) == first.tracks[call, gpu, argument].at(0.0)
    # What changes takes the same values, in the same order.
    power = ("field", 0, json.dumps([186, 0]))
    seen = [each.at(0.05 + 0.1 * k)[1] for each in (again, first) for each in [each.tracks[power]] for k in range(8)]
    assert set(seen[:8]) <= {first.tracks[power].at(0.05 + 0.1 * k)[1] for k in range(100)}
    # And it can be sampled in turn.
    assert open_doors(Source(str(path))).nvml().ask("name", 0) == open_doors(Source(H100)).nvml().ask("name", 0)


def test_probes_find_out_what_is_true_of_the_machine() -> None:
    nvml = open_doors(Source(H100)).nvml()
    changes = probes.changes(nvml, 0, 1.5)
    # Never sooner than it is new; on a machine that is busy elsewhere, a change may be seen late.
    assert 0.08 < changes["field.186.0"]["median_gap_s"] < 0.5
    assert changes["clock.memory"]["changes"] == 0
    assert changes["clock.memory"]["median_gap_s"] is None
    windows = probes.gpm_validity(nvml, 0, 5)
    assert windows["0.02"]["shares_valid"] == windows["0.02"]["rates_not_zero"] == 0
    assert windows["0.12"]["shares_valid"] == 1
    assert probes.gpm_validity(open_doors(Source(H100, faults=(Fault("no_permission", "gpm"),))).nvml(), 0, 5) == {"code": 4}


def test_the_command_records_and_probes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "membound.measure.recorded", str(tmp_path), "--seconds", "0.3", "--machine", H100, "--name", "copy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert load(done.stdout.strip()).name == "copy"
    probed = json.loads((tmp_path / "probes.json").read_text())["probes"]
    assert {"costs", "changes", "gpm", "pm"} <= probed.keys()
    assert probed["costs"]["field.299.0"]["answer"] == f"[({NOT_SUPPORTED}, 0, {probed['costs']['field.299.0']['answer'].split(', ')[2]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no recorded machine"),
        (b"not gzip", "no recorded machine"),
    ],
)
def test_a_file_that_is_no_machine_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(RecordError, match=message):
        load(str(tmp_path / "file"))


@pytest.mark.parametrize(("change", "message"), [({"schema": 2}, "schema 2, this membound reads 1"), ({"tracks": [{}]}, "no recorded machine")])
def test_a_machine_of_another_make_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    tracks.save({**synthetic.synthetic(), **change}, tmp_path / "file")
    with pytest.raises(RecordError, match=message):
        load(str(tmp_path / "file"))


def test_a_name_that_is_not_known_is_met_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean synthetic-h100"):
        load("synthetic-h10")


def test_a_folder_must_hold_one_machine(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds 0 recorded machines"):
        load(str(tmp_path))
    tracks.save(synthetic.synthetic(), tmp_path / f"one{tracks.SUFFIX}")
    assert load(str(tmp_path)).name == H100


@given(faults=st.lists(st.builds(Fault, st.sampled_from(["lost", "stuck", "slow", "busy"]), end=st.one_of(st.floats(0, 9), st.just(float("inf"))))))
def test_a_source_survives_the_way_to_another_process(faults: list[Fault]) -> None:
    source = Source(H100, 8, tuple(faults))
    assert Source.of(json.loads(json.dumps(source.document(), allow_nan=False))) == source


def test_a_mean_leaves_out_what_was_refused() -> None:
    track = Track(entry("gpm", 0, [[0.0, 0, 10.0], [1.0, 3, None], [3.0, 0, 20.0]], [83, 0], counter=False), 4.0)
    assert track.mean(0.0, 4.0) == (0, 15.0)
    assert track.mean(0.0, 2.0) == (3, None)
