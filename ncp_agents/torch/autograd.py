"""What torch may see of a layer: as a rule a whole sequence is one operation with a backward of its
own, which is fast; who must see each operation gets the steps one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad

BY_HAND = "this layer's backward is written by hand and"
REMEDY = "compute its output in `with ncp_agents.torch.second_derivatives():`"

_every_operation: ContextVar[bool] = ContextVar("every_operation", default=False)


@contextmanager
def second_derivatives() -> Iterator[None]:
    """A context in which what layers compute can be differentiated as often as wanted, as for a
    gradient penalty; several times slower.
    """
    token = _every_operation.set(True)
    try:
        yield
    finally:
        _every_operation.reset(token)


def is_followed(x: Tensor) -> bool:
    """Whether someone follows each operation on x: `second_derivatives`, `torch.export`,
    `torch.jit.trace`, a transform of `torch.func`, or a tensor of a kind without values.
    """
    return (
        torch.compiler.is_exporting()
        or _every_operation.get()
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        or type(x) not in (Tensor, torch.nn.Parameter)
        or _functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or x.is_meta
    )


def written_by_hand(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates the backward of an `autograd.Function`, as `once_differentiable` does, but so that
    differentiating it again always fails: that one stays silent, with a wrong result, where the
    gradient that comes in needs no gradient itself, such as that of a sum.
    """

    @wraps(backward)
    def wrapper(ctx: Any, *grad_outputs: Tensor) -> Any:
        if any(map(_is_batched, filter(_given, grad_outputs))):
            raise RuntimeError(f"{BY_HAND} takes one gradient at a time; {REMEDY}")
        with torch.no_grad():
            grads = backward(ctx, *grad_outputs)
        if not torch.is_grad_enabled():
            return grads
        marked = iter(_NotAgain.apply(torch.ones((), requires_grad=True), *filter(_given, grads)))
        return tuple(next(marked) if _given(grad) else None for grad in grads)

    return wrapper


def _is_batched(grad: Tensor) -> bool:
    """Whether it stands for many gradients at once, as with `vectorize=True` of a Jacobian."""
    return _functorch.is_batchedtensor(grad) or _functorch.is_legacy_batchedtensor(grad)


def _given(grad: Tensor | None) -> bool:
    return grad is not None


class _NotAgain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *grads: Tensor) -> tuple[Tensor, ...]:
        return tuple(grad.view_as(grad) for grad in grads)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        raise RuntimeError(f"{BY_HAND} cannot be differentiated again; {REMEDY}")
