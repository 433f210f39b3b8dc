"""Job files: what people write is read, what goes wrong is one line, what is hostile goes nowhere."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from membound.errors import InputError, UnknownNameError
from membound.spec import catalogue, jobfile

GOOD = "model: tiny\ndata: {seq_len: 128}\nrecipe: {micro_batch: 2}\n"
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    return path


def refusal(file: Path, *changes: str, machine: str | None = None) -> str:
    """The one line that reading `file` ends in."""
    with pytest.raises(InputError) as caught:
        jobfile.read(str(file), changes, machine)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestReading:
    @pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
    def test_every_example_is_a_job(self, path: Path) -> None:
        asked = jobfile.read(str(path))
        assert asked.job.machine == asked.machine.name

    def test_a_file_is_a_job_on_a_machine(self, file: Path) -> None:
        asked = jobfile.read(str(file))
        assert (asked.job.model, asked.job.recipe.micro_batch, asked.job.data.seq_len) == ("tiny", 2, 128)
        assert (asked.machine.name, asked.machine.gpus) == (jobfile.DEFAULT_MACHINE, 1)

    def test_standard_input_is_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
        assert jobfile.read("-").job.model == "tiny"

    def test_a_byte_order_mark_is_no_part_of_the_text(self, file: Path) -> None:
        file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
        assert jobfile.read(str(file)).job.model == "tiny"


class TestChanges:
    def test_values_are_yaml(self, file: Path) -> None:
        changes = [
            "recipe.micro_batch=8",
            "recipe.method=lora",
            "recipe.lora.targets=[q_proj, v_proj]",
            "recipe.learning_rate=1e-5",
            "allow_code=true",
        ]
        job = jobfile.read(str(file), changes).job
        assert (job.recipe.micro_batch, job.recipe.lora.targets, job.allow_code) == (8, ("q_proj", "v_proj"), True)
        assert job.recipe.learning_rate == pytest.approx(1e-5)

    def test_null_takes_a_field_out(self, file: Path) -> None:
        assert jobfile.read(str(file), ["data.seq_len=null", "data.lengths=alpaca"]).job.data.lengths == "alpaca"

    def test_a_file_may_leave_to_the_command_line_what_it_wants(self, file: Path) -> None:
        file.write_text("model: tiny\n")
        assert jobfile.read(str(file), ["data.seq_len=64"]).job.data.seq_len == 64

    def test_the_machine_is_changed_with_units(self, file: Path) -> None:
        machine = jobfile.read(str(file), ["machine.gpu.hbm.clock=1593MHz", "machine.gpu.hbm.capacity=40 GiB"]).machine
        assert (machine.gpu.hbm.clock, machine.gpu.hbm.capacity) == (1593e6, 40 * 2**30)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ("recipe.micro_bacth=8", "recipe.micro_bacth: 8: unknown key; did you mean micro_batch?"),
            ("recpie.micro_batch=8", "recpie: 'a dict': unknown key; did you mean recipe?"),
            ("machine.gpu.hmb.clock=1", "machine.gpu.hmb: 'a dict': unknown key; did you mean hbm?"),
            ("machine.gpu.hbm.clock=fast", "machine.gpu.hbm.clock: 'fast': write a quantity such as '2619 MHz'"),
            ("recipe.micro_batch", "--set: 'recipe.micro_batch': write KEY=VALUE"),
            ("=8", "--set: '=8': write KEY=VALUE"),
            ("recipe..lora=8", "--set: 'recipe..lora=8': write KEY=VALUE"),
            ("model.name=8", "model.name: 8: model has no parts"),
            ("data.seq_len=[1", "data.seq_len: '[1': line"),
            ("data.seq_len=!!python/name:os.system x", "tags (!) are not read"),
            ("gpus=many", "gpus: 'many': must be a valid integer"),
        ],
    )
    def test_a_wrong_change_names_itself(self, file: Path, change: str, told: str) -> None:
        assert told in refusal(file, change)


class TestMachines:
    def test_the_command_line_goes_before_the_file(self, file: Path) -> None:
        file.write_text(GOOD + "machine: hgx-h200\n")
        assert jobfile.read(str(file)).machine.name == "hgx-h200"
        asked = jobfile.read(str(file), machine="hgx-a100-80gb")
        assert (asked.machine.name, asked.job.machine) == ("hgx-a100-80gb", "hgx-a100-80gb")

    @pytest.mark.parametrize(("gpus", "shape"), [(1, (1, 1)), (8, (1, 8)), (16, (2, 8))])
    def test_more_gpus_are_more_whole_nodes(self, file: Path, gpus: int, shape: tuple[int, int]) -> None:
        machine = jobfile.read(str(file), ["recipe.engine=ddp", f"gpus={gpus}"]).machine
        assert (machine.nodes, machine.gpus) == shape

    def test_gpus_that_fill_no_whole_nodes_are_refused(self, file: Path) -> None:
        assert "gpus: 12: write 1 to 8, or a multiple of 8" in refusal(file, "recipe.engine=ddp", "gpus=12")

    def test_an_unknown_machine_is_told_its_neighbours(self, file: Path) -> None:
        with pytest.raises(UnknownNameError, match="did you mean hgx-h100"):
            jobfile.read(str(file), machine="hgx-h10")


class TestPaths:
    def test_paths_are_relative_to_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home = tmp_path / "project"
        (home / "shape").mkdir(parents=True)
        (home / "shape" / "config.json").write_text(json.dumps(catalogue.model("tiny").config))
        (home / "ds.json").write_text('{"zero_optimization": {"stage": 1}}')
        (home / "job.yaml").write_text("model: ./shape\ndata: {seq_len: 64}\nrecipe: {engine: deepspeed, deepspeed_config: ds.json}\n")
        monkeypatch.chdir(tmp_path)
        job = jobfile.read("project/job.yaml").job
        assert (job.model, job.recipe.deepspeed_config) == ("project/shape", "project/ds.json")

    def test_paths_of_changes_are_relative_to_the_current_folder(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        here = tmp_path / "here"
        here.mkdir()
        (here / "my.json").write_text(json.dumps(catalogue.model("tiny").config))
        monkeypatch.chdir(here)
        assert jobfile.read("../job.yaml", ["model=my.json"]).job.model == "my.json"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("model: ./nope\ndata: {seq_len: 8}", "model: "),
            ("model: tinny\ndata: {seq_len: 8}", "did you mean tiny"),
            ("model: tiny\ndata: {path: no.json, tokenizer: none}", "there is no such file"),
            ("model: tiny\ndata: {seq_len: 8}\nrecipe: {engine: deepspeed, deepspeed_config: no.json}", "No such file"),
            ('model: "\\0"\ndata: {seq_len: 8}', "model: "),
            ("model: ~nobody-of-that-name/x\ndata: {seq_len: 8}", "no such home folder"),
        ],
    )
    def test_what_is_not_there_is_said_at_once(self, file: Path, text: str, told: str) -> None:
        file.write_text(text)
        assert told in refusal(file)


class TestHostile:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "write a mapping of keys to values"),
            ("[model, data]", "write a mapping of keys to values"),
            ("just words", "write a mapping of keys to values"),
            ("model: a\nmodel: b", "line 2, column 1: the key 'model' stands twice"),
            ("model: {a: 1, a: 2}", "the key 'a' stands twice"),
            ("1: 2", "the key '1' is no text"),
            ("? [a]\n: 1", "is no text"),
            ("a: &x [1, 2]\nb: [*x, *x]", "anchors and aliases (& and *) are not read"),
            ("a: !!python/object/apply:os.system [ls]", "tags (!) are not read"),
            ("[" * 10_000, "nest"),
            ("a: " + "{a: " * 100, "nest"),
            ("a: 1\n b: 2", "line 2, column 3"),
            ("a: 1\n---\nb: 2", "line 2, column 1"),
            ("gpus: " + "9" * 5000, "holds what cannot be read"),
            ("a: \x00", "is not YAML"),
            ("x: " + "y" * 10_000_000, "larger than 200,000 bytes"),
            ("model: tiny\ndata: {seq_len: 2001-99-99}", "data.seq_len: '2001-99-99': must be a valid integer"),
        ],
        ids=lambda text: text[:12].replace("\n", " ") if isinstance(text, str) else None,
    )
    def test_bad_yaml_is_refused_in_one_line(self, file: Path, text: str, told: str) -> None:
        file.write_text(text)
        assert told in refusal(file)

    def test_what_is_no_text_is_refused(self, file: Path) -> None:
        file.write_bytes(b"model: \xff\xfe")
        assert "is not UTF-8 text" in refusal(file)

    @pytest.mark.parametrize(
        ("path", "told"), [("no/such.yaml", "No such file"), (".", "Is a directory"), ("a\0b", "is no path"), ("x" * 5000, "name too long")]
    )
    def test_what_is_no_file_is_refused(self, path: str, told: str) -> None:
        with pytest.raises(InputError, match=told):
            jobfile.read(path)

    def test_an_endless_file_is_not_read_to_its_end(self) -> None:
        assert "larger than" in refusal(Path("/dev/zero"))
