"""What cells on a wiring share."""

from __future__ import annotations

from copy import deepcopy

from torch import nn

from ncp_agents.wirings import Wiring
from ncp_agents.wirings.base import check_wiring


class WiredCell(nn.Module):
    """A cell whose neurons and synapses are those of a wiring.

    Args:
        wiring: built for `inputs` here if it was not yet.
        inputs: how many, or None where the wiring is built already.
        argument: what the cell's users call `inputs`.

    Raises:
        ValueError: no wiring, one that is not built or was built for another size.
    """

    def __init__(self, wiring: Wiring, inputs: int | None, argument: str) -> None:
        super().__init__()
        check_wiring(wiring)
        if inputs is not None:
            wiring.build(inputs)
        if not wiring.is_built():
            raise ValueError(
                f"the wiring is not built; pass {argument}, or call wiring.build({argument}) first"
            )
        self.wiring = deepcopy(wiring)  # whoever changes theirs does not change this cell

    @property
    def state_size(self) -> int:
        return self.wiring.units

    @property
    def sensory_size(self) -> int:
        assert self.wiring.input_dim is not None  # checked in __init__
        return self.wiring.input_dim

    @property
    def motor_size(self) -> int:
        return self.wiring.output_dim or self.wiring.units

    output_size = motor_size

    @property
    def synapse_count(self) -> int:
        return self.wiring.synapse_count

    @property
    def sensory_synapse_count(self) -> int:
        return self.wiring.sensory_synapse_count
