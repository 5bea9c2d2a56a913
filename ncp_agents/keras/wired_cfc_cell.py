"""One step of CfC neurons on a wiring: a chain of sparse CfC layers."""

from __future__ import annotations

from typing import Any

import keras

from ncp_agents.keras.cfc_cell import CfCCell
from ncp_agents.keras.inputs import single_state, split_sizes, split_timespans
from ncp_agents.keras.ops import Tensor, ops
from ncp_agents.keras.wired_cell import WiredCell
from ncp_agents.layers.checks import Mode
from ncp_agents.layers.spec import WiredCfCSpec
from ncp_agents.wirings import Wiring


@keras.saving.register_keras_serializable(package="ncp_agents")
class WiredCfCCell(WiredCell):
    """One step of CfC neurons on a wiring: a chain of sparse CfC layers.

    The circuit and the arguments are those of `ncp_agents.torch.WiredCfCCell`, and besides

    Args:
        wiring: built with the cell if it was not yet.
        fully_recurrent: whether each neuron of a layer reads the whole layer, or only those from
            which the wiring has a synapse.
        mode: as in `CfCCell`.
        activation: ignored, since there is no backbone; the argument is ncps's.
        mask_time_gates: whether the time gates are as sparse as the other heads.
        **kwargs: of `keras.layers.Layer`.

    Called on inputs (B, I), or the pair of them and timespans (B,) or (B, 1) in steps, and a state
    (B, N) or [(B, N)] → output (B, M), [(B, N)].
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
        self.spec = WiredCfCSpec(wiring, mode, mask_time_gates, fully_recurrent)
        self.layer_sizes = self.spec.layer_sizes
        self.cells: list[CfCCell] = []

    def build(  # pyright: ignore[reportIncompatibleMethodOverride]  # named after those of call
        self, inputs_shape: Any, states_shape: Any = None
    ) -> None:
        """Make the layers' cells for inputs of that shape."""
        sources = self.build_wiring(inputs_shape)
        for k, layer in enumerate(self.spec.cells()):
            cell = CfCCell(
                layer.units,
                layer.mode,
                backbone_units=0,
                backbone_dropout=0.0,
                sparsity_mask=layer.sparsity_mask,
                mask_time_gates=layer.mask_time_gates,
                dtype=self.dtype_policy,
                name=f"layer_{k}",
            )
            cell.build((None, sources))
            self.cells.append(cell)
            sources = layer.units
        self.built = True

    def split(self, h: Tensor) -> list[Tensor]:
        """The state (…, N) → the layers' states."""
        return split_sizes(h, self.layer_sizes)

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """One step, see the class."""
        x, timespan = split_timespans(inputs)
        new = []
        for cell, h in zip(self.cells, self.split(single_state(states)), strict=True):
            x, _ = cell(x if timespan is None else (x, timespan), [h])
            new.append(x)
        state = ops.concatenate(new, axis=-1)
        return self.read_out(state), [state]

    def read_out(self, states: Tensor) -> Tensor:
        """The motor neurons (…, M) of the state (…, N)."""
        return states[..., self.spec.output_slice]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments as plain data."""
        names = ("fully_recurrent", "mode", "mask_time_gates")
        return {**super().get_config(), **{name: getattr(self.spec, name) for name in names}}
