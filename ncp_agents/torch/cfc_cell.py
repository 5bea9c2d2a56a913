"""One step of a closed-form continuous-time (CfC) neuron layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from ncp_agents import registry
from ncp_agents.layers.checks import Init, Mode, check_cfc, check_mask, check_step, renamed
from ncp_agents.torch.activations import find_activation
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
        init: "xavier" as in ncps, or "balanced" (`balance_`), which keeps the signal of sparse
            layers at full size.

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
        input_size = check_integer("input_size", input_size, 1)
        units = check_integer("units", renamed("units", units, "hidden_size", hidden_size), 1)
        backbone_units, self.backbone_layers = check_cfc(
            mode, backbone_units, backbone_layers, backbone_dropout, sparsity_mask is not None
        )
        self.input_size = input_size
        self.hidden_size = units
        self.mode: Mode = mode
        self.activation_name = renamed(
            "activation", activation, "backbone_activation", backbone_activation, "lecun_tanh"
        )
        self.activation = find_activation(self.activation_name)
        self.backbone_dropout = backbone_dropout
        self.mask_time_gates = mask_time_gates

        self.register_buffer("sparsity_mask", self._checked_mask(sparsity_mask))

        # The keys keep the places of ncps's nn.Sequential, so that its state dicts load:
        # Linear, activation, then Linear, activation[, dropout] for each further layer.
        self.backbone = nn.ModuleDict()
        stride = 3 if backbone_dropout > 0 else 2
        width = input_size + units
        for layer in range(self.backbone_layers):
            place = 0 if layer == 0 else 2 + stride * (layer - 1)
            self.backbone[str(place)] = Head(width, backbone_units)
            width = backbone_units

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
        """Initialise the heads anew by the synapses that exist, for layers that follow one another.

        Xavier's rule counts the sources that a mask removes, and h is the mean of two tanh, which
        halves its variance: together a chain of sparse layers loses a factor of about two a layer,
        in its signal and again in its gradient. Here each neuron's input weights have variance
        gain^2 / (its number of synapses), gain 2 for ff1 and ff2, which makes up for both, and 1
        for the gates; recurrent weights are orthogonal and biases zero.
        """
        if self.backbone_layers:
            raise ValueError("init 'balanced' needs a cell without a backbone; use 'xavier'")
        inputs = self.input_size
        synapses = torch.full((self.hidden_size, 1), float(inputs))
        if self.sparsity_mask is not None:
            synapses = self.sparsity_mask[:, :inputs].sum(1, keepdim=True).clamp(min=1.0)
        with torch.no_grad():
            for name in ("ff1", "ff2", "time_a", "time_b"):
                head = getattr(self, name, None)
                if not isinstance(head, Head):
                    continue
                is_gate = name.startswith("time")
                sources = synapses if not is_gate or self.mask_time_gates else float(inputs)
                gain = 1.0 if is_gate else 2.0
                head.weight[:, :inputs].normal_().mul_(gain / sources**0.5)
                nn.init.orthogonal_(head.weight[:, inputs:])
                head.bias.zero_()

    def _checked_mask(self, mask: np.ndarray | Tensor | None) -> Tensor | None:
        """(I + N, N) of any sign → (N, I + N) of 0.0 and 1.0."""
        if mask is None:
            return None
        if isinstance(mask, Tensor):
            mask = (mask.detach() != 0).cpu()
        exists = check_mask(mask, self.input_size, self.hidden_size)
        return torch.as_tensor(exists.T.astype(np.float32, order="C"))

    def heads(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The masked weight (N, inputs) and bias (N,) of ff1[, ff2, time_a, time_b]."""
        mask = self.sparsity_mask
        for name in ("ff1",) if self.mode == "pure" else ("ff1", "ff2", "time_a", "time_b"):
            head: Head = getattr(self, name)
            weight, bias = head.tensors()
            if mask is not None and (self.mask_time_gates or name.startswith("ff")):
                weight = weight * mask
            yield weight, bias

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
