"""What cells on a wiring share."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

import keras

from ncp_agents.keras.inputs import input_size
from ncp_agents.layers.checks import check_wiring
from ncp_agents.layers.spec import motor_size
from ncp_agents.wirings import Wiring, wiring_from_config, wiring_to_config


class WiredCell(keras.layers.Layer):
    """A cell whose neurons and synapses are those of a wiring, which its config holds.

    Args:
        wiring: built with the cell if it was not yet.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: no wiring.
    """

    def __init__(self, wiring: Wiring, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_wiring(wiring)
        self.wiring = wiring
        self.state_size, self.output_size = wiring.units, motor_size(wiring)

    def build_wiring(self, inputs_shape: Any) -> int:
        """Build the wiring for inputs of that shape and return I."""
        inputs = input_size(inputs_shape)
        self.wiring.build(inputs)
        self.wiring = deepcopy(self.wiring)  # which later changes do not reach
        return inputs

    def get_config(self) -> dict[str, Any]:
        """Return the arguments as plain data."""
        return {**super().get_config(), "wiring": wiring_to_config(self.wiring)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the cell that `get_config` described."""
        return cls(**{**config, "wiring": wiring_from_config(config["wiring"])})
