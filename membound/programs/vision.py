"""The vision Program: classifiers and detectors on images of bytes, channels last, as NVIDIA's and MLPerf's recipes feed them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import nn

from membound.errors import InputError
from membound.programs import models, synthetic, vision_mask_rcnn, vision_resnet, vision_samples, vision_ssd
from membound.programs.program import Batch, Batches, Program
from membound.programs.vision_layers import channels_last
from membound.programs.world import World


@dataclass(frozen=True)
class _Kind:
    """One type of model: how it is built from its configuration, and what it is fed."""

    model: Callable[[dict[str, Any]], nn.Module]
    samples: Callable[[dict[str, Any], int, int, torch.Generator | None], Batch]
    """From configuration, rows, pixels of the shorter side, and what to draw from (None: values that nobody looks at)."""


_KINDS: Final[dict[str, _Kind]] = {
    "resnet-v1.5": _Kind(vision_resnet.Classifier, vision_samples.classified),
    "ssd300": _Kind(vision_ssd.Ssd, vision_samples.boxed),
    "mask-rcnn": _Kind(vision_mask_rcnn.MaskRcnn, vision_samples.masked),
}


@final
@dataclass(frozen=True)
class Vision(Program):
    """Images whose shorter side has `data.image_size` pixels, with what the model's type learns from: a class, or boxes, or boxes and masks."""

    def model(self, world: World) -> nn.Module:
        """Channels last. Raises `InputError` for images of a size that it is not made for."""
        wanted, given = self.config.get("image_size"), self.job.data.image_size
        if wanted is not None and given != wanted:
            raise InputError("data.image_size", given, f"{self.job.model} takes images of {wanted} pixels")
        built = _KINDS[self.config["model_type"]].model(self.config)
        return channels_last(built.to(models.weight_dtype(self.job.recipe))).train()

    def batches(self, world: World) -> Batches:
        return lambda index: self._samples(synthetic.generator(index, world.rank))

    def planned(self) -> Batch:
        return self._samples(None)

    def _samples(self, draw: torch.Generator | None) -> Batch:
        assert self.job.data.image_size is not None
        return _KINDS[self.config["model_type"]].samples(self.config, self.job.recipe.micro_batch, self.job.data.image_size, draw)
