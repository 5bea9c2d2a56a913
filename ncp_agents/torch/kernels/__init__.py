"""What makes the scan fast: optional kernels, each equal to the plain path up to float rounding.

They are chosen by themselves where they fit. `with kernels.off():`, or the environment variable
`NCP_AGENTS_KERNELS=0`, keeps to plain torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
