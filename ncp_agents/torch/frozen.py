"""Weights that stay as they are for a while, so that what is made of them is made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch.nn import Module

T = TypeVar("T")
MAX_CACHED = 16  # things made of one module, such as its weights for different timespans


@contextmanager
def frozen(*modules: Module) -> Iterator[None]:
    """Return a context in which the modules' weights stay as they are, so they are prepared once.

    In a rollout of single steps that would take as long as the step. Calls that need gradients are
    not affected.
    """
    ours = [module for module in modules if module not in _FROZEN]  # others are so outside, too
    _FROZEN.update((module, {}) for module in ours)
    try:
        yield
    finally:
        for module in ours:
            del _FROZEN[module]


# Not keyed by the tensors' `_version`: fused optimisers change weights without counting it up.
_FROZEN: WeakKeyDictionary[Module, dict[Hashable, Any]] = WeakKeyDictionary()


def is_frozen(module: Module) -> bool:
    """Return whether what is made of the module's weights is kept for the next call."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling() and module in _FROZEN


def prepared(module: Module, key: Hashable, prepare: Callable[[], T]) -> T:
    """Return what `prepare` makes of a module's weights, or made of frozen ones before.

    Args:
        module: frozen or not.
        key: of what is made; a module can have several.
        prepare: makes it.
    """
    if not is_frozen(module):
        return prepare()
    known = _FROZEN[module]
    if key not in known:
        if len(known) >= MAX_CACHED:
            known.clear()
        known[key] = prepare()
    return known[key]
