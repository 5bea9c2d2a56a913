"""Convolutional encoders: pixels to features, one frame at a time.

Each is a stable-baselines3 features extractor, so it works wherever one is asked for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from torch import Tensor, nn

from ncp_agents.names import look_up


class CompactCNN(BaseFeaturesExtractor):
    """A small encoder for small circuits: 175k parameters on one 84 x 84 frame.

    Each frame is standardised, then two convolutions, 16 filters of 8 x 8 every 4 pixels and 32 of
    4 x 4 every 2, and a linear layer, each followed by ReLU. Standardising is what lets a ball of
    two pixels in 7,056 be seen from the start: the background, alike in every frame, would drown
    it. `scripts/benchmarks/throughput.py` measures its speed beside `NatureCNN`'s.

    Args:
        observation_space: (C, H, W) image of at least 20 x 20 pixels.
        features_dim: size of the output.

    Raises:
        ValueError: another observation space.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 64) -> None:
        check_fits(type(self), observation_space)
        super().__init__(observation_space, features_dim)
        self.cnn = nn.Sequential(
            BlockConv2d(observation_space.shape[0], 16, 8, 4),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            flat = self.cnn(torch.zeros(1, *observation_space.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(flat, features_dim), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """(B, C, H, W) in 0…1 → (B, features_dim)."""
        standardised = F.layer_norm(observations, observations.shape[-3:])
        return self.linear(self.cnn(standardised))


class BlockConv2d(nn.Conv2d):
    """A `Conv2d` without padding whose kernel is a multiple of its stride, computed on blocks.

    With the pixels of each stride x stride block as channels it is a convolution of stride 1: the
    same weights, the same sums, but one that oneDNN has fast kernels for, also where there is but
    one input channel. In memory channels come last, also in what it gives, so that convolutions
    after it take their fast kernels as well.

    Raises:
        ValueError: a kernel that is no multiple of the stride.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        if kernel_size % stride:
            raise ValueError(f"kernel_size is {kernel_size}, expected a multiple of {stride}")
        super().__init__(in_channels, out_channels, kernel_size, stride)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) → (B, O, (H - kernel) // stride + 1, likewise W)."""
        if not torch.is_grad_enabled():
            return super().forward(input)  # without a gradient to take, blocks only cost
        stride, kernel = self.stride[0], self.kernel_size[0]
        # Rows and columns beyond the last whole kernel count for nothing.
        height, width = ((size - kernel) // stride + kernel // stride for size in input.shape[2:])
        pixels = input[:, :, : height * stride, : width * stride]
        reach = kernel // stride  # blocks a kernel covers, each way
        return F.conv2d(
            _blocks(pixels, height, width, stride),
            _blocks(self.weight, reach, reach, stride),
            self.bias,
        )


def _blocks(pixels: Tensor, height: int, width: int, stride: int) -> Tensor:
    """(B, C, height * stride, width * stride) → (B, stride * stride * C, height, width), channels
    last in memory."""
    batch, channels = pixels.shape[:2]
    blocks = pixels.reshape(batch, channels, height, stride, width, stride)
    blocks = blocks.permute(0, 2, 4, 3, 5, 1).reshape(batch, height, width, -1)
    return blocks.permute(0, 3, 1, 2)


ENCODERS: dict[str, type[BaseFeaturesExtractor]] = {
    "compact": CompactCNN,
    "nature": NatureCNN,
    "flatten": FlattenExtractor,
}


def encoder(name: str) -> type[BaseFeaturesExtractor]:
    """The encoder of that name; an unknown name is a ValueError with a suggestion."""
    return look_up("encoder", name, ENCODERS)


def check_fits(encoder: type[BaseFeaturesExtractor], observation_space: spaces.Space) -> None:
    """Refuses an observation space that one of the known encoders cannot read.

    Raises:
        ValueError: names the space and what was expected.
    """
    expected = None
    if issubclass(encoder, CombinedExtractor):
        if isinstance(observation_space, spaces.Dict):
            for space in observation_space.spaces.values():
                if is_image_space(space):
                    check_fits(NatureCNN, space)
        else:
            expected = "a Dict; MlpNcpPolicy reads vectors, CnnNcpPolicy images"
    elif issubclass(encoder, FlattenExtractor):
        if isinstance(observation_space, spaces.Dict):
            expected = "one that is not a Dict; MultiInputNcpPolicy reads those"
    elif issubclass(encoder, CompactCNN | NatureCNN):
        # The fewest pixels a side from which the strides leave one for the last layer.
        pixels = 20 if issubclass(encoder, CompactCNN) else 36
        shape = observation_space.shape or ()
        if len(shape) != 3 or min(shape[1:]) < pixels:
            expected = (
                f"an image (C, H, W) of at least {pixels} x {pixels} pixels; "
                "MlpNcpPolicy reads vectors"
            )
    if expected:
        raise ValueError(f"observation space is {observation_space}, expected {expected}")
