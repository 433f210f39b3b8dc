"""The catalogue: every entry is checked against what it stands for, and files of others are refused with one clear line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from membound.errors import InputError, UnknownNameError
from membound.spec import catalogue, families
from membound.spec.fields import UNSOURCED
from membound.spec.hf_config import MAX_BYTES

MODELS = catalogue.models()
MACHINES = catalogue.machines()
# The widest gap between a maker's rounded bandwidth and clock x bus: the H200, 4.8 TB/s printed, 4.92 at the 3201 MHz that its driver reports.
BANDWIDTH_TOLERANCE = 0.025


class TestModels:
    @pytest.mark.parametrize("name", [name for name in MODELS if families.of(catalogue.model(name).config).name == "causal-lm"])
    def test_parameters_are_those_that_transformers_builds(self, name: str) -> None:
        torch = pytest.importorskip("torch", reason="counting needs PyTorch")
        transformers = pytest.importorskip("transformers", reason="counting needs Transformers")
        entry = catalogue.model(name)
        with torch.device("meta"):
            built = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**entry.config))
        assert [type(built).__name__] == entry.config["architectures"]
        assert sum(parameter.numel() for parameter in built.parameters()) == entry.parameters

    @pytest.mark.parametrize("name", MODELS)
    def test_entries_are_whole(self, name: str) -> None:
        entry = catalogue.model(name)
        assert entry.name == name == name.lower()
        assert entry.source
        assert entry.config["model_type"]

    @pytest.mark.parametrize("name", MODELS)
    def test_entries_pass_our_own_checks(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(catalogue.model(name).config))
        assert catalogue.model_entry(str(tmp_path)).config == catalogue.model(name).config

    @pytest.mark.parametrize(
        ("name", "billions"), [("llama-7b", 6.74), ("llama-33b", 32.53), ("llama-65b", 65.29), ("bloom-176b", 176.25), ("gpt2-xl", 1.558)]
    )
    def test_parameters_as_published(self, name: str, billions: float) -> None:
        assert catalogue.model(name).parameters == pytest.approx(billions * 1e9, rel=1e-3)


class TestMachines:
    @pytest.mark.parametrize("name", MACHINES)
    def test_bandwidth_is_the_data_sheets(self, name: str) -> None:
        hbm = catalogue.machine(name).gpu.hbm
        assert hbm.datasheet_bandwidth is not None
        assert hbm.bandwidth == pytest.approx(hbm.datasheet_bandwidth, rel=BANDWIDTH_TOLERANCE)

    @pytest.mark.parametrize("name", MACHINES)
    def test_capacity_is_nearly_all_that_is_mounted(self, name: str) -> None:
        hbm = catalogue.machine(name).gpu.hbm
        assert 0.93 < hbm.capacity / (hbm.stacks * hbm.stack_capacity) <= 1

    @pytest.mark.parametrize("name", MACHINES)
    def test_peaks_hold_at_the_boost_clock(self, name: str) -> None:
        # Tensor cores do a power of two of FLOP per clock and SM: 512 on the smallest here, 8192 on the largest.
        gpu = catalogue.machine(name).gpu
        rate = gpu.peaks.of("bf16") / gpu.sms / gpu.clock.boost
        assert min(abs(rate / 2**power - 1) for power in range(9, 14)) < 0.003
        assert gpu.clock.boost <= gpu.clock.max

    @pytest.mark.parametrize("name", MACHINES)
    def test_pcie_is_its_generations(self, name: str) -> None:
        pcie = catalogue.machine(name).links.pcie
        if pcie.kind == "PCIe":
            # 8 GT/s at generation 3, doubling since; 128b/130b encoding (PCI Express base specification 3.0 to 5.0).
            assert pcie.bandwidth == pytest.approx(8e9 * 2 ** (pcie.generation - 3) * pcie.lanes / 8 * 128 / 130, rel=0.005)

    @pytest.mark.parametrize("name", MACHINES)
    def test_every_block_names_its_source(self, name: str) -> None:
        machine = catalogue.machine(name)
        assert machine.name == name
        unsourced = [type(block).__name__ for block in blocks(machine) if getattr(block, "source", "") == UNSOURCED]
        assert unsourced == []

    def test_every_gpu_is_a_machine_of_one(self) -> None:
        lone = {machine.gpu.name for machine in map(catalogue.machine, MACHINES) if machine.gpus == 1 and machine.name == machine.gpu.name}
        assert lone == {machine.gpu.name for machine in map(catalogue.machine, MACHINES)}

    @pytest.mark.parametrize(
        ("name", "mebibytes"),
        [
            ("a100-sxm-40gb", 40960),
            ("a100-sxm-80gb", 81920),
            ("h100-sxm", 81559),
            ("h200", 143771),
            ("b200", 183359),
            ("l40s", 46068),
            ("rtx-4090", 24564),
        ],
    )
    def test_capacity_as_nvidia_smi_reports_it(self, name: str, mebibytes: int) -> None:
        assert catalogue.machine(name).gpu.hbm.capacity == mebibytes * 2**20


def blocks(model: BaseModel) -> Iterator[BaseModel]:
    yield model
    for _, value in model:
        if isinstance(value, BaseModel):
            yield from blocks(value)


class TestNames:
    @pytest.mark.parametrize("name", ["llama-7", "llama7b", "lama-7b"])
    def test_near_names_are_offered(self, name: str) -> None:
        with pytest.raises(UnknownNameError, match="llama-7b"):
            catalogue.model_entry(name)
        with pytest.raises(UnknownNameError, match=r"^model: .*llama-7b"):
            catalogue.model(name)

    @pytest.mark.parametrize("name", ["", ".", "../gpus/h200", "h100", "hgx-h100.yaml"])
    def test_unknown_machines(self, name: str) -> None:
        with pytest.raises(UnknownNameError, match=r"^machine: "):
            catalogue.machine(name)

    def test_names_are_lower_case_with_hyphens(self) -> None:
        assert all(re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)*", name) for name in MODELS + MACHINES)

    def test_reading_needs_no_framework(self) -> None:
        code = """
import sys
from membound.spec import catalogue, families
catalogue.model("llama-7b"), catalogue.machine("hgx-h100")
sys.exit(len({"torch", "transformers"} & set(sys.modules)))
"""
        assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


class TestOwnModels:
    """A config.json of one's own, or of somebody else."""

    GOOD: ClassVar[dict[str, Any]] = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 512, "rope_scaling": None}

    def write(self, folder: Path, text: str | bytes) -> str:
        path = folder / "config.json"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    def refused(self, folder: Path, text: str | bytes, **options: bool) -> str:
        path = self.write(folder, text)
        with pytest.raises(InputError) as caught:
            catalogue.model_entry(path, **options)
        line = str(caught.value)
        assert path in line
        assert "\n" not in line
        assert len(line) < 400 + len(path)
        return line

    def test_file_and_folder(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, json.dumps(self.GOOD))
        entry = catalogue.model_entry(path)
        assert entry == catalogue.model_entry(str(tmp_path))
        assert (entry.name, entry.config, entry.parameters) == (tmp_path.name, self.GOOD, None)

    def test_a_catalogue_name_goes_first(self) -> None:
        assert catalogue.model_entry("tiny") == catalogue.model("tiny")

    @pytest.mark.parametrize(
        "text", ["", "{", "not json", b"\xff\xfe\x00", "[1]", '"text"', "3", "null", "{'a': 1}", "[" * 100_000, '{"a":' * 50_000]
    )
    def test_not_a_json_object(self, tmp_path: Path, text: str | bytes) -> None:
        self.refused(tmp_path, text)

    @pytest.mark.parametrize(
        "value",
        ["NaN", "Infinity", "-Infinity", "0", "-64", "1e12", "1000000000000", "true", '"64"', "64.5", "1e999", "9" * 5000, "9" * 400, "[64, 0]"],
    )
    def test_absurd_sizes(self, tmp_path: Path, value: str) -> None:
        self.refused(tmp_path, f'{{"model_type": "llama", "hidden_size": {value}}}')

    @pytest.mark.parametrize("value", ["1e999", "-1e13", "NaN", "9" * 400])
    def test_absurd_numbers_anywhere(self, tmp_path: Path, value: str) -> None:
        self.refused(tmp_path, f'{{"model_type": "llama", "deep": {{"list": [1, {value}]}}}}')

    def test_sizes_of_inner_models_are_checked(self, tmp_path: Path) -> None:
        assert "text_config.hidden_size" in self.refused(tmp_path, json.dumps({**self.GOOD, "text_config": {"hidden_size": 0}}))

    def test_nested_bomb(self, tmp_path: Path) -> None:
        inner = "[" * 40 + "1" + "]" * 40
        assert "nested deeper" in self.refused(tmp_path, f'{{"model_type": "llama", "x": {inner}}}')

    def test_long_keys_with_many_children(self, tmp_path: Path) -> None:
        children = ",".join(f'"{child}":1' for child in range(40_000))
        self.refused(tmp_path, f'{{"model_type": "llama", "{"k" * 400_000}": {{{children}, "x": 1e999}}}}')
        self.refused(tmp_path, '{"\\ud800": NaN}')
        self.refused(tmp_path, '{"\\ud800": 1e999}').encode()

    @pytest.mark.parametrize("kind", [None, "", " ", 3, ["llama"]])
    def test_model_type_must_be_given(self, tmp_path: Path, kind: object) -> None:
        assert "model_type" in self.refused(tmp_path, json.dumps({**self.GOOD, "model_type": kind}))

    def test_remote_code_only_when_allowed(self, tmp_path: Path) -> None:
        text = json.dumps({**self.GOOD, "auto_map": {"AutoConfig": "evil.Config"}})
        assert "brings its own code" in self.refused(tmp_path, text)
        assert catalogue.model_entry(str(tmp_path), allow_code=True).config["auto_map"]

    def test_large_files(self, tmp_path: Path) -> None:
        assert "larger than" in self.refused(tmp_path, b" " * (MAX_BYTES + 1))

    def test_no_file(self, tmp_path: Path) -> None:
        for missing in (tmp_path, tmp_path / "none" / "config.json", tmp_path / "model.json"):
            with pytest.raises(InputError, match="no such file"):
                catalogue.model_entry(str(missing))

    @pytest.mark.parametrize("text", ["a\0b", "x" * 10_000, "/" + "x" * 10_000])
    def test_no_path_at_all(self, text: str) -> None:
        with pytest.raises(InputError) as caught:
            catalogue.model_entry(text)
        assert len(str(caught.value)) < 3000

    def test_devices_are_not_read(self) -> None:
        with pytest.raises(InputError, match="no such file"):
            catalogue.model_entry("/dev/zero")


def test_santacoder_has_the_activation_of_the_checkpoint_for_its_class() -> None:
    # bigcode/gpt_bigcode-santacoder; gelu_fast is that of bigcode/santacoder, which brings code of its own.
    assert catalogue.model_entry("santacoder").config["activation_function"] == "gelu_pytorch_tanh"
