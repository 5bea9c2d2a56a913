"""The number of threads of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ncp_agents.errors import UserError


def use_threads(count: int) -> None:
    """Limit torch to `count` threads; 0 leaves its own choice, one a core.

    Raises:
        UserError: a count below 0 or above 1024.
    """
    if not 0 <= count <= 1024:
        raise UserError(f"threads is {count}, expected 0 <= threads <= 1024; 0 takes one a core")
    if count:
        torch.set_num_threads(count)


@contextmanager
def one_thread() -> Iterator[None]:
    """Return a context in which torch keeps to one thread, as while environments run.

    Small networks gain nothing from more threads, which would wait on the cores that the emulators
    need.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
