"""What cells on a wiring share."""

from __future__ import annotations

from typing import Any, Self

import keras

from ncp_agents.keras.inputs import input_size
from ncp_agents.wirings import Wiring, wiring_from_config, wiring_to_config
from ncp_agents.wirings.base import check_wiring


class WiredCell(keras.layers.Layer):
    """A cell whose neurons and synapses are those of a wiring, which its config holds.

    Args:
        wiring: built with the cell if it was not yet.
    """

    def __init__(self, wiring: Wiring, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_wiring(wiring)
        self.wiring = wiring

    @property
    def state_size(self) -> int:
        return self.wiring.units

    @property
    def output_size(self) -> int:
        return self.wiring.output_dim or self.wiring.units

    def build_wiring(self, inputs_shape: Any) -> int:
        """Builds the wiring → I."""
        inputs = input_size(inputs_shape)
        self.wiring.build(inputs)
        return inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "wiring": wiring_to_config(self.wiring)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "wiring": wiring_from_config(config["wiring"])})
