"""What makes the scan fast: optional kernels, each equal to the plain path up to float rounding.

They are chosen by themselves where they fit. `with kernels.off():`, or the environment variable
`NCP_AGENTS_KERNELS=0`, keeps to plain torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

_on: ContextVar[bool] = ContextVar("kernels", default=os.environ.get("NCP_AGENTS_KERNELS") != "0")


def are_on() -> bool:
    return _on.get()


@contextmanager
def off() -> Iterator[None]:
    """A context without kernels."""
    token = _on.set(False)
    try:
        yield
    finally:
        _on.reset(token)


@cache
def backend(cell: str, device: str) -> Any:
    """The module with the kernel of a cell ("cfc" or "ltc") for a type of device, or None."""
    if device == "cpu":
        return import_module(f"{__name__}.{cell}_cpu")
    if device == "cuda" and find_spec("triton"):
        return import_module(f"{__name__}.{cell}_gpu")
    return None
