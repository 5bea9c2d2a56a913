"""The compiled kernels, as far as the package was installed with them."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch

# The instruction sets that `compile.py` makes a library for, by torch's names.
VARIANTS = {"AVX512": "avx512", "AVX2": "avx2"}


def path(variant: str) -> Path:
    suffix = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
    return Path(__file__).parent / f"cpu-{variant}.{suffix}"


@cache
def library() -> ctypes.CDLL | None:
    """The fastest one that this machine runs, or None."""
    best = VARIANTS.get(torch.backends.cpu.get_cpu_capability())
    known = [*VARIANTS.values()]  # best first
    for variant in (*(known[known.index(best) :] if best else ()), "generic"):
        if path(variant).exists():
            return ctypes.CDLL(str(path(variant)))
    return None


def by_rows(kernel: Callable[[int, int], int], rows: int, operations: float) -> None:
    """Call `kernel(begin, end)` for all rows, shared among torch's number of threads if there is
    enough to do. `operations` is the number of multiplications in all."""
    threads = min(torch.get_num_threads(), rows, 1 + int(operations / WORTH_A_THREAD))
    ends = [rows * i // threads for i in range(threads + 1)]
    waiting = [_pool().submit(kernel, *part) for part in pairwise(ends[1:])]
    failed = kernel(0, ends[1])
    if any([failed, *(future.result() for future in waiting)]):
        raise MemoryError("not enough memory for the kernel's scratch space")


WORTH_A_THREAD = 2e6  # multiplications, some 50 us; waking a thread takes about as long


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="ncp-agents")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
