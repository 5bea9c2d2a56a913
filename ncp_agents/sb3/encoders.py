"""Convolutional encoders: pixels to features, one frame at a time.

Each is a stable-baselines3 features extractor, so it works wherever one is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

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

from ncp_agents import registry
from ncp_agents.torch.kernels import convolutions


class CompactCNN(BaseFeaturesExtractor):
    """A small encoder for small circuits: 175k parameters on one 84 x 84 frame.

    Each frame is standardised, then two convolutions, 16 filters of 8 x 8 every 4 pixels and 32 of
    4 x 4 every 2, and a linear layer, each followed by ReLU. Without standardising, the background,
    alike in every frame, would outweigh a ball of two pixels in 7,056 early in training. On the CPU
    a kernel runs the convolutions (`torch/kernels/convolutions.c`);
    `scripts/benchmarks/throughput.py` measures its speed beside `NatureCNN`'s.

    Args:
        observation_space: (C, H, W) image of at least 20 x 20 pixels.
        features_dim: size of the output.

    Raises:
        ValueError: another observation space.
    """

    layers: ClassVar = ((16, 8, 4), (32, 4, 2))  # filters, their size, pixels from one to the next

    def __init__(self, observation_space: spaces.Box, features_dim: int = 64) -> None:
        check_fits(type(self), observation_space)
        super().__init__(observation_space, features_dim)
        channels, modules = observation_space.shape[0], []
        for filters, size, stride in self.layers:
            modules += [nn.Conv2d(channels, filters, size, stride), nn.ReLU()]
            channels = filters
        self.cnn = nn.Sequential(*modules, nn.Flatten())
        with torch.no_grad():
            flat = self.cnn(torch.zeros(1, *observation_space.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(flat, features_dim), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """(B, C, H, W), in 0…1 or as bytes in 0…255 → (B, features_dim)."""
        if convolutions.fits(observations, self.cnn):
            return self.linear(convolutions.run(observations, self.cnn).flatten(1))
        if observations.dtype == torch.uint8:
            observations = observations.float() / 255.0
        standardised = F.layer_norm(observations, observations.shape[-3:])
        return self.linear(self.cnn(standardised))


class DeepCompactCNN(CompactCNN):
    """`CompactCNN` with a third convolution, 64 filters of 3 x 3 every 2.

    Its receptive fields are wider, and the linear layer reads 1,024 numbers instead of 2,592: with
    128 features it has 159k parameters. Images are of at least 36 x 36 pixels.
    """

    layers: ClassVar = (*CompactCNN.layers, (64, 3, 2))


ENCODERS: dict[str, type[BaseFeaturesExtractor]] = {
    "compact": CompactCNN,
    "deep": DeepCompactCNN,
    "nature": NatureCNN,
}


def find_encoder(name: str) -> type[BaseFeaturesExtractor]:
    """Return the encoder of that name.

    Raises:
        UnknownNameError: with the nearest known name.
    """
    return registry.get("encoder", name, ENCODERS)


def check_fits(encoder: type[BaseFeaturesExtractor], observation_space: spaces.Space) -> None:
    """Refuse an observation space that one of the known encoders cannot read.

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
        pixels = _fewest_pixels(encoder.layers) if issubclass(encoder, CompactCNN) else 36
        shape = observation_space.shape or ()
        if len(shape) != 3 or min(shape[1:]) < pixels:
            expected = (
                f"an image (C, H, W) of at least {pixels} x {pixels} pixels; "
                "MlpNcpPolicy reads vectors"
            )
    if expected:
        raise ValueError(f"observation space is {observation_space}, expected {expected}")


def _fewest_pixels(layers: Sequence[tuple[int, int, int]]) -> int:
    """Return the pixels a side from which the strides leave one for the last layer."""
    pixels = 1
    for _, size, stride in reversed(layers):
        pixels = (pixels - 1) * stride + size
    return pixels
