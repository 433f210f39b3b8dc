"""GNMT in NVIDIA's variant: the attention's query is the decoder's first layer, and its context goes into every later one.

Shapes are those of NVIDIA/DeepLearningExamples PyTorch/Translation/GNMT. Everything is [tokens, rows, features], as cuDNN wants it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from membound.programs.output import Output


class Gnmt(nn.Module):
    """Encoder and decoder of LSTM layers with residuals, sharing one embedding; smoothed cross-entropy for its loss."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, words, layers = config["hidden_size"], config["vocab_size"], config["num_layers"]
        self.embedder = nn.Embedding(words, width, padding_idx=0)
        self.encoder = Encoder(width, layers, config["dropout"])
        self.decoder = Decoder(width, layers, config["dropout"])
        self.lm_head = nn.Linear(width, words)
        self._smoothing = float(config["label_smoothing"])
        spread = float(config["initializer_range"])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -spread, spread)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> Output:
        """Loss of sentences [S, B] and their translations, begin mark included, [T + 1, B]."""
        context = self.encoder(self.embedder(source))
        logits = self.lm_head(self.decoder(self.embedder(target[:-1]), context))
        return Output(F.cross_entropy(logits.flatten(0, 1), target[1:].flatten(), label_smoothing=self._smoothing))


class Encoder(nn.Module):
    """One bidirectional layer, one that takes both directions, then residual ones."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        both = nn.LSTM(width, width, bidirectional=True)
        self.rnn_layers = nn.ModuleList([both, nn.LSTM(2 * width, width), *(nn.LSTM(width, width) for _ in range(layers - 2))])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.rnn_layers):
            out, _ = layer(self.dropout(x))
            x = out + x if i >= 2 else out
        return x


class Decoder(nn.Module):
    """The first layer asks the attention; each later one takes the layer below beside what the attention gave, with residuals from the third."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.LSTM(width, width)
        self.attention = Attention(width)
        self.rnn_layers = nn.ModuleList(nn.LSTM(2 * width, width) for _ in range(layers - 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        x, _ = self.first(x)
        attended = self.attention(x, context)
        for i, layer in enumerate(self.rnn_layers):
            out, _ = layer(torch.cat((self.dropout(x), attended), dim=2))
            x = out + x if i >= 1 else out
        return x


class Attention(nn.Module):
    """Additive attention (Bahdanau et al. 2015), normalised (Salimans and Kingma 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_q = nn.Linear(width, width, bias=False)
        self.linear_k = nn.Linear(width, width, bias=False)
        self.linear_att = nn.Parameter(torch.empty(width))
        self.normalize_scalar = nn.Parameter(torch.empty(1))
        self.normalize_bias = nn.Parameter(torch.empty(width))

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """What each of the queries [T, B, H] draws from the keys [S, B, H]: [T, B, H]."""
        queries, keys = queries.transpose(0, 1), keys.transpose(0, 1)
        pairs = self.linear_q(queries).unsqueeze(2) + self.linear_k(keys).unsqueeze(1) + self.normalize_bias  # [B, T, S, H]
        direction = self.linear_att / self.linear_att.norm() * self.normalize_scalar
        weights = F.softmax(torch.tanh(pairs) @ direction, dim=-1)  # [B, T, S]
        return torch.bmm(weights, keys).transpose(0, 1)
