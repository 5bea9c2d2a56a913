"""Gradients of a custom backward, which can be differentiated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ncp_agents.keras.ops import Tensor, ops


def first_order(gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the same gradients, whose own gradients raise instead of being silently wrong.

    The forward's states are constants in the backward, so its derivative would lack their part.
    """

    @ops.custom_gradient
    def same(value: Tensor) -> tuple[Tensor, Any]:
        def gradient(*_: Tensor, upstream: Any = None) -> None:
            raise RuntimeError(
                "this layer has no second derivatives; compute its output by "
                "keras.layers.RNN(layer.cell)"
            )

        return ops.copy(value), gradient

    return tuple(map(same, gradients))  # one by one: Keras on torch takes one output only
