"""What convolutional networks here share: their input, and their memory layout."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

# Mean and standard deviation of ImageNet's red, green and blue, in units of a byte: 255 x (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225),
# as torchvision's pretrained models and NVIDIA's recipes take them.
_MEAN: Final = (123.675, 116.28, 103.53)
_DEVIATION: Final = (58.395, 57.12, 57.375)


class Normalise(nn.Module):
    """Images of bytes [B, 3, H, W], as loaders deliver them, to numbers around 0 in the type of the weights."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self.mean.dtype).sub_(self.mean).div_(self.deviation)


def channels_last(model: nn.Module) -> nn.Module:
    """Lay out the weights of convolutions as cuDNN's tensor-core kernels want them (NHWC), in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight = nn.Parameter(module.weight.detach().contiguous(memory_format=torch.channels_last), module.weight.requires_grad)
    return model
