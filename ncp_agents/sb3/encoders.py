"""Convolutional encoders: pixels to features, one frame at a time.

Each is a stable-baselines3 features extractor, so it works wherever one is asked for.
"""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, NatureCNN
from torch import Tensor, nn

from ncp_agents.names import look_up


class CompactCNN(BaseFeaturesExtractor):
    """A small encoder for small circuits: 112k parameters on one 84 x 84 frame.

    Two convolutions, 16 filters of 8 x 8 every 6 pixels and 32 of 4 x 4 every 2, then a linear
    layer, each followed by ReLU. On a CPU it runs 15 times as many frames a second as `NatureCNN`
    (`scripts/benchmarks/throughput.py` measures both): the first layer, which sees the most
    pixels, takes half its stride and a quarter of its filters.

    Args:
        observation_space: (C, H, W) image.
        features_dim: size of the output.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        self.cnn = nn.Sequential(
            nn.Conv2d(observation_space.shape[0], 16, 8, 6),
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
        return self.linear(self.cnn(observations))


ENCODERS: dict[str, type[BaseFeaturesExtractor]] = {
    "compact": CompactCNN,
    "nature": NatureCNN,
    "flatten": FlattenExtractor,
}


def encoder(name: str) -> type[BaseFeaturesExtractor]:
    """The encoder of that name; an unknown name is a ValueError with a suggestion."""
    return look_up("encoder", name, ENCODERS)
