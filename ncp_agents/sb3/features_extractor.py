"""A circuit as a features extractor, for algorithms without recurrence: PPO, A2C, DQN."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from ncp_agents.sb3.circuits import WiringLike, make_circuit
from ncp_agents.sb3.encoders import check_fits, find_encoder


class NCPFeaturesExtractor(BaseFeaturesExtractor):
    """The frames of a stack, or the rows of a window, as a sequence through encoder and circuit.

    The circuit starts from zero at the oldest frame and its state after the newest one is the
    features, so the algorithm around it needs no memory of its own:

        PPO("CnnPolicy", env, policy_kwargs={"features_extractor_class": NCPFeaturesExtractor})

    Args:
        observation_space: a stack of frames (F * channels, H, W), a window of rows (T, I), or a
            vector (I,), which is a window of one row.
        wiring: a `Wiring`, its config, or the number of neurons of a dense circuit.
        cell: "cfc" or "ltc".
        encoder: of one frame: "compact", "deep" or "nature"; rows are not encoded.
        encoder_kwargs: its arguments.
        channels: of one frame: 1 grey, 3 colour.
        read: "neurons" for the whole state, "motor" for the motor neurons only.
        circuit_kwargs: further arguments of the circuit's layer.

    Raises:
        ValueError: an observation space that is none of these; unknown names.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        wiring: WiringLike = 64,
        cell: str = "cfc",
        encoder: str = "compact",
        encoder_kwargs: dict[str, Any] | None = None,
        channels: int = 1,
        read: Literal["neurons", "motor"] = "neurons",
        circuit_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(observation_space, spaces.Box) or not (
            1 <= len(observation_space.shape) <= 3
        ):
            raise ValueError(
                f"observation space is {observation_space}, expected a Box of frames "
                "(F * channels, H, W), of rows (T, I), or of (I,); flatten others first"
            )
        shape = observation_space.shape
        frames = None
        if is_image_space(observation_space, normalized_image=True) and len(shape) == 3:
            if shape[0] % channels:
                raise ValueError(
                    f"observation has {shape[0]} channels, expected a multiple of {channels} "
                    "(channels of one frame)"
                )
            frames = spaces.Box(0, 255, (channels, *shape[1:]), np.uint8)
            check_fits(find_encoder(encoder), frames)
        one_frame = find_encoder(encoder)(frames, **(encoder_kwargs or {})) if frames else None
        circuit = make_circuit(
            one_frame.features_dim if one_frame else shape[-1],
            wiring,
            cell,
            **(circuit_kwargs or {}),
        )
        if read not in ("neurons", "motor"):
            raise ValueError(f"read is {read!r}, expected 'neurons' or 'motor'")
        super().__init__(
            observation_space, circuit.state_size if read == "neurons" else circuit.output_size
        )
        self.encoder = one_frame
        self.circuit = circuit
        self.channels = channels
        self.read = read

    def forward(self, observations: Tensor) -> Tensor:
        """(B, F * channels, H, W) in 0…1, (B, T, I) or (B, I) → (B, features_dim)."""
        batch = observations.shape[0]
        if self.encoder is not None:
            frames = observations.unflatten(1, (-1, self.channels)).flatten(0, 1)
            rows = self.encoder(frames).view(batch, -1, self.encoder.features_dim)
        else:
            rows = observations.view(batch, -1, observations.shape[-1])
        states, _ = self.circuit.states(rows)
        last = states[:, -1]
        return last if self.read == "neurons" else self.circuit.read_out(last)
