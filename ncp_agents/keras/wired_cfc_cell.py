"""One step of CfC neurons on a wiring: a chain of sparse CfC layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ncp_agents.keras.cfc_cell import CfCCell
from ncp_agents.keras.inputs import single_state, split_sizes, split_timespans
from ncp_agents.keras.ops import Tensor, ops
from ncp_agents.keras.wired_cell import WiredCell
from ncp_agents.layers.checks import Mode, check_outputs
from ncp_agents.wirings import Wiring


@keras.saving.register_keras_serializable(package="ncp_agents")
class WiredCfCCell(WiredCell):
    """One step of CfC neurons on a wiring.

    The layers of the wiring (inter, command, motor for an NCP) follow one another within a step:
    each reads the layer before it through the synapses of the wiring, and its own previous state
    through recurrent weights.

    Axes: B batch, I inputs, N neurons, M motor neurons (outputs).

    Args:
        wiring: built for I inputs with the cell if it was not yet.
        fully_recurrent: whether every neuron of a layer sees every other, or only those from which
            the wiring has a synapse.
        mode: as in `CfCCell`.
        activation: "lecun_tanh"; a wired cell has no backbone for another to act on.
        mask_time_gates: whether the time gates are as sparse as the other heads.

    Raises:
        ValueError: a wiring that was built for another size, an unknown mode, another activation.

    The state (B, N) holds the layers in order, first to last: [inter, command, motor].

    Source: Lechner et al. 2020, "Neural circuit policies enabling auditable autonomy".
    """

    def __init__(
        self,
        wiring: Wiring,
        fully_recurrent: bool = True,
        mode: Mode = "default",
        activation: str = "lecun_tanh",
        *,
        mask_time_gates: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(wiring, **kwargs)
        if activation != "lecun_tanh":
            raise ValueError(
                f"activation={activation!r} does not go with a wiring: it has no backbone"
            )
        check_outputs(self.output_size, len(wiring.layers[-1]))
        self.fully_recurrent = fully_recurrent
        self.mode: Mode = mode
        self.mask_time_gates = mask_time_gates
        self.layer_sizes = [len(neurons) for neurons in self.wiring.layers]
        self.cells: list[CfCCell] = []

    def build(self, inputs_shape: Any, states_shape: Any = None) -> None:
        sources = self.build_wiring(inputs_shape)
        layers, adjacency = self.wiring.layers, self.wiring.adjacency_matrix
        feeding = self.wiring.sensory_erev_initializer()[:, layers[0]]
        for k, neurons in enumerate(layers):
            recurrent = adjacency[np.ix_(neurons, neurons)]
            cell = CfCCell(
                len(neurons),
                self.mode,
                backbone_units=0,
                backbone_dropout=0.0,
                sparsity_mask=np.concatenate(
                    [feeding, np.ones_like(recurrent) if self.fully_recurrent else recurrent]
                ),
                mask_time_gates=self.mask_time_gates,
                dtype=self.dtype_policy,
                name=f"layer_{k}",
            )
            cell.build((None, sources))
            self.cells.append(cell)
            sources = len(neurons)
            if k + 1 < len(layers):
                feeding = adjacency[np.ix_(neurons, layers[k + 1])]
        self.built = True

    def split(self, h: Tensor) -> list[Tensor]:
        """The state (…, N) → the layers' states."""
        return split_sizes(h, self.layer_sizes)

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """inputs (B, I), or the pair of it and timespans (B,) or (B, 1) in steps; states (B, N) or
        [(B, N)] → output (B, M), new states [(B, N)].
        """
        x, timespan = split_timespans(inputs)
        new = []
        for cell, h in zip(self.cells, self.split(single_state(states)), strict=True):
            x, _ = cell(x if timespan is None else (x, timespan), [h])
            new.append(x)
        state = ops.concatenate(new, axis=-1)
        return self.read_out(state), [state]

    def read_out(self, states: Tensor) -> Tensor:
        """The motor neurons (…, M) of the state (…, N): first in the last layer."""
        start = sum(self.layer_sizes[:-1])
        return states[..., start : start + self.output_size]

    def torch_names(self) -> dict[str, Any]:
        """The variables by their names in the torch port's state dict."""
        return self._by_layer(CfCCell.torch_names)

    def torch_buffers(self) -> dict[str, np.ndarray]:
        """What the torch port's state dict holds besides the variables."""
        return self._by_layer(CfCCell.torch_buffers)

    def _by_layer(self, named: Any) -> dict[str, Any]:
        return {
            f"layer_{k}.{name}": value
            for k, cell in enumerate(self.cells)
            for name, value in named(cell).items()
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "fully_recurrent": self.fully_recurrent,
            "mode": self.mode,
            "mask_time_gates": self.mask_time_gates,
        }
