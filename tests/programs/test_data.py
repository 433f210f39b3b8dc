"""Micro-batches: the Alpaca format, padding, truncation, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from membound.errors import InputError
from membound.programs.data import IGNORE, Row, Rows, collate, needs_mask, planned, prompt_of
from membound.spec.job import Data
from membound.spec.lengths import stored

ROWS = [
    {"instruction": "Add the numbers.", "input": "1 2", "output": "3"},
    {"instruction": "Say hello.", "input": "", "output": "hello"},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small byte-pair tokenizer, trained here on a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.train_from_iterator([prompt_of(row) for row in ROWS], trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "</s>"]))
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    return str(folder)


def data_file(folder: Path, rows: object) -> str:
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return str(path)


def test_prompt_has_an_input_section_only_where_there_is_input() -> None:
    assert "### Input:\n1 2\n\n### Response:" in prompt_of(ROWS[0])
    assert "### Input:" not in prompt_of(ROWS[1])


def test_a_template_in_the_data_is_text() -> None:
    assert "{output} %s {0}" in prompt_of({"instruction": "{output} %s {0}", "output": "x"})


def test_users_rows_carry_loss_on_the_answer_and_its_end_alone(tmp_path: Path, tokenizer: str) -> None:
    rows = Rows(Data(path=data_file(tmp_path, ROWS), tokenizer=tokenizer), micro_batch=2, vocabulary=200)
    batch = rows.batch(0)
    assert set(batch) == {"input_ids", "labels", "attention_mask"}
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        kept = labels != IGNORE
        assert kept.any()
        assert torch.equal(ids[kept], labels[kept])
        assert not (kept & (mask == 0)).any()
        assert not kept[0]


def test_rows_are_cut_at_the_cap(tmp_path: Path, tokenizer: str) -> None:
    rows = Rows(Data(path=data_file(tmp_path, ROWS), tokenizer=tokenizer, max_length=5), micro_batch=2, vocabulary=200)
    assert rows.batch(0)["input_ids"].shape == (2, 5)


@pytest.mark.parametrize("content", [[], {}, [1], [{"instruction": "x"}], [{"instruction": 1, "output": "y"}]])
def test_what_is_no_alpaca_file_is_refused_in_one_line(tmp_path: Path, tokenizer: str, content: object) -> None:
    with pytest.raises(InputError, match=r"^data\.path: ") as caught:
        Rows(Data(path=data_file(tmp_path, content), tokenizer=tokenizer), 1, 200)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_without_tokenizer_are_named(tmp_path: Path, tokenizer: str) -> None:
    with pytest.raises(InputError, match=r"^data\.path"):
        Rows(Data(path=str(tmp_path / "none.json"), tokenizer=tokenizer), 1, 200)
    with pytest.raises(InputError, match=r"^data\.tokenizer"):
        Rows(Data(path=data_file(tmp_path, ROWS), tokenizer=str(tmp_path)), 1, 200)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_padding_reaches_the_longest_row_and_no_further(lengths: list[int]) -> None:
    batch = collate([Row(tuple(range(1, n + 1)), prompt=0) for n in lengths])
    assert batch["input_ids"].shape == (len(lengths), max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert (batch["labels"] != IGNORE).sum(1).tolist() == lengths


def test_ranks_draw_different_rows() -> None:
    data = Data(lengths="alpaca", max_length=512)
    first, second = (Rows(data, 2, 1000, rank, 2).batch(0)["attention_mask"].sum(1).tolist() for rank in (0, 1))
    assert first != second


def test_the_planned_batch_has_the_shape_of_the_longest_real_one() -> None:
    padded = planned(Data(lengths="alpaca", max_length=64), 3)
    assert padded["input_ids"].shape == (3, 64)
    assert padded["attention_mask"].sum(1).tolist() == [64, 32, 32]
    assert "attention_mask" not in planned(Data(seq_len=16), 3)
    assert not needs_mask(Data(lengths="alpaca"), 1)


def test_stored_lengths_are_those_of_the_source() -> None:
    lengths = stored("alpaca")
    assert len(lengths) == 5000
    assert (min(lengths), max(lengths)) == (44, 667)
    assert sum(lengths) / len(lengths) == pytest.approx(123.7, abs=0.05)
