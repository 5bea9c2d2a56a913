"""How operators of `torch.ops.ncp_agents` are registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

NAMESPACE = "ncp_agents"
_library = Library(NAMESPACE, "DEF")


def register(
    schema: str,
    implementations: dict[str, Callable[..., Any]],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> Any:
    """Define an operator.

    Args:
        schema: "name(Tensor x, …) -> …", as in torch's native functions.
        implementations: by dispatch key, "CPU" and "CUDA".
        fake: the same on tensors without values: shapes, strides and types only.
        backward: as `torch.library.register_autograd` takes it; None for an operator that is
            itself a backward, which cannot be differentiated again.
        setup_context: as `torch.library.register_autograd` takes it.

    Returns:
        The operator. `torch.vmap` runs it once for each element of the mapped axis.
    """
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema.partition("(")[0]
    for key, implementation in implementations.items():
        _library.impl(name, implementation, key)
    qualified = f"{NAMESPACE}::{name}"
    torch.library.register_fake(qualified, fake, lib=_library)
    torch.library.register_autograd(
        qualified, backward or _refuse, setup_context=setup_context, lib=_library
    )
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default

    def mapped(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        results = [
            operator(*(_selected(arg, dim, index) for arg, dim in zip(args, in_dims, strict=True)))
            for index in range(info.batch_size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        stacked = type(results[0])(torch.stack(parts) for parts in zip(*results, strict=True))
        return stacked, type(stacked)(0 for _ in stacked)

    torch.library.register_vmap(qualified, mapped, lib=_library)
    return operator


def _refuse(*_: Any) -> None:
    """Raise where a backward is differentiated: what it reads of the forward is constant in it."""
    raise RuntimeError(
        "the kernels have first derivatives only; compute what is differentiated twice in "
        "`with ncp_agents.torch.kernels.off():`"
    )


def _selected(arg: Any, dim: Any, index: int) -> Any:
    """Return one element of a mapped argument, which may be a list; others as they are."""
    if isinstance(dim, Sequence):
        return [_selected(one, axis, index) for one, axis in zip(arg, dim, strict=True)]
    return arg if dim is None or not isinstance(arg, Tensor) else arg.select(dim, index)
