"""Micro-batches: Alpaca-format rows from the user's file, rows of stored or fixed lengths; right-padded to the longest row of the micro-batch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from membound.errors import InputError
from membound.spec.job import Data, json_file
from membound.spec.lengths import ROWS, stored

IGNORE = -100

# The two prompts of tatsu-lab/stanford_alpaca train.py (Apache-2.0), whose wording the row lengths depend on.
_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


@dataclass(frozen=True)
class Row:
    """One training row: token ids and, of those, how many belong to the prompt (which carries no loss)."""

    ids: tuple[int, ...]
    prompt: int


class Rows:
    """An endless supply of micro-batches for one rank. `batch(i)` is the i-th: input_ids, labels and, if rows differ, attention_mask [B, T]."""

    def __init__(self, data: Data, micro_batch: int, vocabulary: int, rank: int = 0, size: int = 1) -> None:
        self.micro_batch = micro_batch
        self._masked = needs_mask(data, micro_batch)
        self._rows = _source(data, vocabulary)
        self._rank, self._size = rank, size

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """Micro-batch `index` of this rank, on the host."""
        first = (index * self._size + self._rank) * self.micro_batch
        batch = collate([self._rows[(first + i) % len(self._rows)] for i in range(self.micro_batch)])
        return batch if self._masked else {name: batch[name] for name in ("input_ids", "labels")}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        index = 0
        while True:
            yield self.batch(index)
            index += 1


def collate(rows: list[Row], pad: int = 0) -> dict[str, torch.Tensor]:
    """Right-pad `rows` to the longest: input_ids, labels, attention_mask, each int64 [B, T]."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.int64)
    labels = torch.full((len(rows), longest), IGNORE, dtype=torch.int64)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for i, row in enumerate(rows):
        tokens = torch.tensor(row.ids)
        ids[i, : len(row.ids)] = tokens
        labels[i, row.prompt : len(row.ids)] = tokens[row.prompt :]
        mask[i, : len(row.ids)] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def planned(data: Data, micro_batch: int) -> dict[str, torch.Tensor]:
    """The micro-batch that memory is planned for, on the host: the longest row at the cap, the others half as long where rows differ."""
    shape = (micro_batch, data.cap)
    batch = {name: torch.ones(shape, dtype=torch.int64) for name in ("input_ids", "labels")}
    if needs_mask(data, micro_batch):
        batch["attention_mask"] = torch.ones(shape, dtype=torch.int64)
        batch["attention_mask"][1:, data.cap // 2 :] = 0
    return batch


def needs_mask(data: Data, micro_batch: int) -> bool:
    """Whether rows of different lengths stand side by side, so that attention must skip the padding."""
    return data.padded and micro_batch > 1


def row_counts(path: str, tokenizer: str) -> list[int]:
    """Token counts of the rows of a user's file, before truncation. Raises `InputError`."""
    return [len(row.ids) for row in _tokenised(path, tokenizer)]


def _source(data: Data, vocabulary: int) -> list[Row]:
    if data.path is not None and data.tokenizer is not None:
        return [_truncate(row, data.cap) for row in _tokenised(data.path, data.tokenizer)]
    lengths = [data.seq_len] if data.seq_len is not None else stored("alpaca")
    draw = random.Random(0)
    return [_random_row(draw, min(length, data.cap), vocabulary) for length in lengths[:ROWS]]


def _random_row(draw: random.Random, length: int, vocabulary: int) -> Row:
    # A first-order chain, not noise: a model can learn it, so a tiny run's loss falls.
    ids = [draw.randrange(vocabulary)]
    while len(ids) < length:
        ids.append((ids[-1] * 5 + 7) % vocabulary if draw.random() < 0.9 else draw.randrange(vocabulary))
    return Row(tuple(ids), prompt=0)


def _truncate(row: Row, cap: int) -> Row:
    return Row(row.ids[:cap], min(row.prompt, cap))


def _tokenised(path: str, tokenizer_folder: str) -> list[Row]:
    from transformers import AutoTokenizer

    examples = _examples(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError("data.tokenizer", tokenizer_folder, f"is no tokenizer folder: {str(error).splitlines()[0]}") from None
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    rows = []
    for example in examples:
        prompt = tokenizer(prompt_of(example))["input_ids"]
        answer = tokenizer(example["output"], add_special_tokens=False)["input_ids"]
        rows.append(Row(tuple(prompt + answer + end), len(prompt)))
    return rows


def prompt_of(example: dict[str, str]) -> str:
    """The Alpaca prompt of one example with `instruction` and, maybe, `input`."""
    template = _WITH_INPUT if example.get("input") else _WITHOUT_INPUT
    return template.format_map({"instruction": example["instruction"], "input": example.get("input", "")})


def _examples(path: str) -> list[dict[str, Any]]:
    examples = json_file("data.path", path)
    if not isinstance(examples, list) or not examples:
        raise InputError("data.path", path, "must hold a JSON list of rows")
    for number, example in enumerate(examples):
        if not isinstance(example, dict) or not all(isinstance(example.get(k), str) for k in ("instruction", "output")):
            raise InputError("data.path", path, f"row {number} needs the texts instruction and output")
    return examples
