"""The UPerNet decoder of FLAIR-HUB's models, which is that of segmentation-models-pytorch before 0.5.

Since 0.5 that library builds another decoder under the same name, with other tensors. FLAIR-HUB pins 0.4.0, and the
parameters that its cards count (29.8, 89.4 and 90.2 million) are those of this one. Its steps, after Xiao et al.,
"Unified Perceptual Parsing for Scene Understanding", ECCV 2018:

1. The deepest feature map is averaged over 1, 2², 3² and 6² parts of the window, and all of it becomes one map again.
2. Going up, each map is enlarged to the next feature map, and that is added to it.
3. All maps are brought to a quarter of the image's resolution, and one convolution makes one map of them.

The names of the modules are those of the tensors in checkpoints.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional

_PARTS = (1, 2, 3, 6)
OUTPUT_CHANNELS = 64
"""Channels that the segmentation head reads."""
_OWN_NAME = "decoder.fpn_stages."
UNUSED_NAME = "decoder.fpn_stages.4."
"""Prefix of the stage of the image itself. Checkpoints have it, and no forward uses it."""


def has_earlier_upernet(names: Iterable[str]) -> bool:
    """Whether some tensors, by their names, belong to this decoder."""
    return any(name.startswith(_OWN_NAME) for name in names)


class EarlierUPerNetDecoder(nn.Module):
    """Feature maps of an encoder → float32 (n, 64, y / 4, x / 4)."""

    def __init__(self, encoder_channels: Sequence[int], *, pyramid_channels: int = 256) -> None:
        super().__init__()
        deepest, *others = encoder_channels[:0:-1]
        self.psp = _PooledContext(deepest, pyramid_channels)
        self.fpn_stages = nn.ModuleList(_Stage(channels, pyramid_channels) for channels in others)
        self.fpn_bottleneck = _convolution((1 + len(others)) * pyramid_channels, OUTPUT_CHANNELS, size=3)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps features of 1, 1/2, 1/4, … of the image's resolution, the first of which is the image itself."""
        height, width = features[0].shape[2:]
        deepest, *others = features[:0:-1]
        maps = [self.psp(deepest)]
        for stage, feature in zip(self.fpn_stages, others, strict=True):
            maps.append(stage(maps[-1], feature))
        quarter = [_resized(each, (height // 4, width // 4)) for each in maps]
        fused: torch.Tensor = self.fpn_bottleneck(torch.cat(quarter, dim=1))
        return fused


class _PooledContext(nn.Module):
    """A feature map beside its averages over parts of the window."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        each = channels // len(_PARTS)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(parts), _convolution(channels, each)) for parts in _PARTS
        )
        self.out_conv = _convolution(2 * channels, outputs)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        averages = [_resized(block(feature), feature.shape[2:]) for block in self.blocks]
        context: torch.Tensor = self.out_conv(torch.cat([feature, *averages], dim=1))
        return context


class _Stage(nn.Module):
    """Enlarges a map to a feature map, and adds that; a feature map without channels only gives the size."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.skip_conv = _convolution(channels, outputs) if channels else None

    def forward(self, coarse: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
        enlarged = _resized(coarse, feature.shape[2:])
        return enlarged if self.skip_conv is None else enlarged + self.skip_conv(feature)


def _convolution(inputs: int, outputs: int, *, size: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _resized(maps: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return functional.interpolate(maps, size=tuple(shape), mode="bilinear", align_corners=False)
