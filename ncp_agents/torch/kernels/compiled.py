"""The compiled kernels, as far as the package was installed with them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch

# The instruction sets that `compile.py` makes a library for, by torch's names.
VARIANTS = {"AVX512": "avx512", "AVX2": "avx2"}


HERE = Path(__file__).parent


def path(variant: str) -> Path:
    """Where the library is, named after the sources it was made from: an older one, left behind
    when those changed, would misread what it is given."""
    sources = sorted(HERE.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    suffix = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
    return HERE / f"cpu-{variant}-{digest}.{suffix}"


@cache
def library() -> ctypes.CDLL | None:
    """The fastest one that this machine runs, or None."""
    best = VARIANTS.get(torch.backends.cpu.get_cpu_capability())
    known = [*VARIANTS.values()]  # best first
    for variant in (*(known[known.index(best) :] if best else ()), "generic"):
        if path(variant).exists():
            return ctypes.CDLL(str(path(variant)))
    if [*HERE.glob("cpu-*")]:
        warnings.warn(
            "the compiled kernels are of other sources, so plain torch does their work; "
            "compile them again: make install, or pip install -e .",
            stacklevel=2,
        )
    return None


def by_rows(name: str, call: ctypes.Structure, rows: int, operations: float) -> None:
    """Run the kernel `name` on all rows, in parts that torch's number of threads share.

    The kernel gets its argument, the rows of a part, begin and end, and the part's number, which is
    below `torch.get_num_threads()`. `operations` is the number of multiplications in all: a little
    work stays in one part.
    """
    kernel, pointer = getattr(library(), name), ctypes.byref(call)
    parts = min(torch.get_num_threads(), rows, 1 + int(operations / WORTH_A_THREAD))
    ends = [rows * i // parts for i in range(parts + 1)]
    calls = [(pointer, *ends, part) for part, ends in enumerate(pairwise(ends))]
    others = [_pool().submit(kernel, *arguments) for arguments in calls[1:]]
    failed = kernel(*calls[0])
    if any([failed, *(other.result() for other in others)]):
        raise MemoryError("not enough memory for the kernel's scratch space")


WORTH_A_THREAD = 2e6  # multiplications, some 50 us; waking a thread takes about as long


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="ncp-agents")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
