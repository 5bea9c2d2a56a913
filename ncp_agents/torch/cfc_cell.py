"""One step of a closed-form continuous-time (CfC) neuron layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ncp_agents import registry
from ncp_agents.layers.checks import Init, Mode, check_step
from ncp_agents.layers.spec import CfCSpec
from ncp_agents.torch.activations import ACTIVATIONS
from ncp_agents.torch.heads import Head
from ncp_agents.validation import check_integer


class CfCCell(nn.Module):
    """One step of a closed-form continuous-time (CfC) neuron layer.

        z  = backbone([x, h])
        g  = sigmoid(time_a(z) * dt + time_b(z))
        h' = (1 - g) * tanh(ff1(z)) + g * tanh(ff2(z))

    Axes: B batch, I inputs, N neurons.

    Args:
        input_size: I.
        units: N; `hidden_size` is accepted as its older name.
        mode: "default" (above), "no_gate" (without the factor 1 - g), or
            "pure" (h' = A - A * exp(-dt * (|w_tau| + |ff1(z)|)) * ff1(z)).
        activation: of the backbone: "lecun_tanh", "tanh", "relu", "silu" or "gelu";
            `backbone_activation` is accepted as its older name.
        backbone_units: width of each backbone layer; 0 means no backbone.
        backbone_layers: number of backbone layers; 0 means no backbone.
        backbone_dropout: probability with which a backbone activation is dropped in training.
        sparsity_mask: (I + N, N) of zeros and non-zeros, row = source, column = target, or None.
            Limits ff1 and ff2; needs backbone_units=0.
        mask_time_gates: whether the mask limits time_a and time_b as well.
        init: "xavier" as in ncps, or "balanced" (`CfCSpec.balanced`), which keeps the signal of
            sparse layers at full size.

    Raises:
        ValueError: unknown mode or activation, a size below 1, a dropout outside [0, 1), a mask of
            another shape, or a mask together with a backbone.

    Source: Hasani et al. 2022, Nature Machine Intelligence, "Closed-form continuous-time neural
    networks", arXiv:2106.13898.
    """

    sparsity_mask: Tensor | None
    w_tau: nn.Parameter  # (1, N), in pure mode
    A: nn.Parameter  # (1, N), in pure mode

    def __init__(
        self,
        input_size: int,
        units: int | None = None,
        mode: Mode = "default",
        activation: str = "lecun_tanh",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        backbone_dropout: float = 0.0,
        sparsity_mask: np.ndarray | Tensor | None = None,
        *,
        mask_time_gates: bool = False,
        init: Init = "xavier",
        hidden_size: int | None = None,
        backbone_activation: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(sparsity_mask, Tensor):
            sparsity_mask = sparsity_mask.detach().cpu().numpy()
        self.spec = spec = CfCSpec(
            _renamed("units", units, "hidden_size", hidden_size),
            mode,
            _renamed(
                "activation", activation, "backbone_activation", backbone_activation, "lecun_tanh"
            ),
            backbone_units,
            backbone_layers,
            backbone_dropout,
            sparsity_mask,
            mask_time_gates,
        )
        self.input_size = input_size = check_integer("input_size", input_size, 1)
        self.hidden_size = self.state_size = self.output_size = units = spec.units
        self.output_slice, self.wiring = slice(0, units), None
        self.mode: Mode = mode
        self.activation = ACTIVATIONS[spec.activation]
        self.backbone_layers = spec.backbone_layers
        self.backbone_dropout = backbone_dropout

        *widths, width = spec.widths(input_size)
        self.register_buffer("sparsity_mask", None)
        for name, mask in spec.masks().items():
            self.register_buffer(name, torch.from_numpy(mask))
        self.backbone = nn.ModuleDict(
            {
                name: Head(sources, spec.backbone_units)
                for name, sources in zip(spec.backbone, widths, strict=True)
            }
        )
        self.ff1 = Head(width, units)
        if mode == "pure":
            self.w_tau = nn.Parameter(torch.zeros(1, units))
            self.A = nn.Parameter(torch.ones(1, units))
        else:
            self.ff2 = Head(width, units)
            self.time_a = Head(width, units)
            self.time_b = Head(width, units)
        if registry.get("init", init, get_args(Init)) == "balanced":
            self.balance_()

    def balance_(self) -> None:
        """Initialise the heads again as `CfCSpec.balanced` says, for layers in a chain."""
        inputs = self.input_size
        with torch.no_grad():
            for name, scale in self.spec.balanced(inputs).items():
                head: Head = getattr(self, name)
                head.weight[:, :inputs].normal_().mul_(torch.as_tensor(scale))
                nn.init.orthogonal_(head.weight[:, inputs:])
                head.bias.zero_()

    @property
    def any_parameter(self) -> Tensor:
        """One parameter; all have its dtype and device."""
        return self.ff1.bias

    def heads(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The masked weight (N, inputs) and bias (N,) of ff1[, ff2, time_a, time_b]."""
        mask = self.sparsity_mask
        for name in self.spec.heads:
            head: Head = getattr(self, name)
            weight, bias = head.tensors()
            yield weight if mask is None or not self.spec.is_masked(name) else weight * mask, bias

    def forward(
        self, x: Tensor, h: Tensor, timespan: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """x (B, I), h (B, N), timespan a float, (B,) or (B, 1), in steps → output and state (B, N).

        Raises:
            ValueError: another shape.
        """
        timespan = check_step(x, h, timespan, self.input_size, self.hidden_size)
        if isinstance(timespan, Tensor):
            timespan = timespan.to(x.dtype)
        z = torch.cat([x, h], -1)
        for layer in self.backbone.values():
            z = self.activation(layer(z))
            z = nn.functional.dropout(z, self.backbone_dropout, self.training)
        linear = [nn.functional.linear(z, weight, bias) for weight, bias in self.heads()]
        if self.mode == "pure":
            (f,) = linear
            decay = torch.exp(-timespan * (absolute(self.w_tau) + f.abs()))
            h = self.A - self.A * decay * f
        else:
            f1, f2, a, b = linear
            f1, f2, gate = torch.tanh(f1), torch.tanh(f2), torch.sigmoid(a * timespan + b)
            h = f1 + gate * f2 if self.mode == "no_gate" else f1 + gate * (f2 - f1)
        return h, h


def absolute(w: Tensor) -> Tensor:
    """|w| whose slope at 0 is +1, so that a w_tau that starts at zero can move."""
    return torch.where(w < 0, -w, w)


def _renamed(name: str, value: Any, older: str, alias: Any, default: Any = None) -> Any:
    """Return an argument that may also be given under its older name.

    Raises:
        ValueError: both are given, and differ.
    """
    if alias is None or alias == value:
        return value
    if value != default:
        raise ValueError(f"{name} is {value!r} and {older}, its older name, {alias!r}; give one")
    return alias
