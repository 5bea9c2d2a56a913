"""What goes out of a backward that is written by hand: gradients that are gradients only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ncp_agents.keras.ops import Tensor, ops


def not_again(gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same gradients, which raise where they are differentiated in turn: what a backward reads
    of the forward stands still in it, so that their own gradients would be silently wrong.
    """

    @ops.custom_gradient
    def same(value: Tensor) -> tuple[Tensor, Any]:
        def gradient(*_: Tensor, upstream: Any = None) -> None:
            raise RuntimeError(
                "this layer's backward is written by hand and cannot be differentiated again; for "
                "second derivatives take keras.layers.RNN(layer.cell)"
            )

        return ops.copy(value), gradient

    return tuple(map(same, gradients))  # one by one: Keras on torch takes one output only
