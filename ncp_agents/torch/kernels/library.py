"""The compiled kernels, as far as the package was installed with them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor, wait
from ctypes import c_int32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch

# The instruction sets that `hatch_build.py` makes a library for, by torch's names.
VARIANTS = {"AVX512": "avx512", "AVX2": "avx2"}
HERE = Path(__file__).parent


def path(variant: str) -> Path:
    """Where the library is, named after the sources it was made from: an older one, left behind
    when those changed, would misread what it is given.
    """
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
            return load(path(variant))
    if [*HERE.glob("cpu-*")]:
        warnings.warn(
            "the compiled kernels are of other sources, so plain torch does their work; "
            "compile them again: make install, or pip install -e .",
            stacklevel=2,
        )
    return None


def load(path: Path) -> ctypes.CDLL:
    compiled = ctypes.CDLL(str(path))
    compiled.cfc_packed_size.restype = ctypes.c_int64
    return compiled


def padded(count: int) -> int:
    """As many floats in whole vectors of the library."""
    compiled = library()
    assert compiled is not None
    vector = compiled.vector_width()
    return -(-count // vector) * vector


class _Work(ctypes.Structure):
    """`Work` of team.c."""

    _fields_ = (
        ("kernel", c_void_p),
        ("call", c_void_p),
        ("rows", c_int32),
        ("parts", c_int32),
        ("next", c_int32),
        ("failed", c_int32),
    )


def parallel_rows(
    name: str, call: ctypes.Structure | ctypes.Array, rows: int, operations: float
) -> None:
    """Run the kernel `name` on all rows, in parts that torch's number of threads share.

    The kernel gets its argument, the rows of a part, begin and end, and the part's number, which is
    below `torch.get_num_threads()`. `operations` is the number of multiplications in all: a little
    work stays in one part.
    """
    compiled = library()
    assert compiled is not None
    threads = torch.get_num_threads()
    parts = threads if operations > MIN_PARALLEL_OPS else 1
    work = _Work(address_of(name), ctypes.addressof(call), rows, min(parts, rows), 0, 0)
    if parts == 1:
        compiled.take_parts(ctypes.byref(work))
    elif parallel := _openmp():
        parallel(compiled.take_parts, ctypes.byref(work), threads, 0)
    else:
        pointer = ctypes.byref(work)
        others = [_pool().submit(compiled.take_parts, pointer) for _ in range(parts - 1)]
        try:
            compiled.take_parts(pointer)
        finally:  # also on Ctrl-C, since they read what the caller's arrays hold
            wait(others)
    if work.failed:
        raise MemoryError("not enough memory for the kernel's scratch space")


def address_of(kernel: str) -> int | None:
    """The function of that name in the library."""
    compiled = library()
    assert compiled is not None
    return _address_of(compiled, kernel)


@cache
def _address_of(compiled: ctypes.CDLL, name: str) -> int | None:
    return ctypes.cast(getattr(compiled, name), c_void_p).value


MIN_PARALLEL_OPS = 2e6  # multiplications, some 30 us; waking a thread takes about as long


@cache
def _openmp() -> Any:
    """`GOMP_parallel` of the OpenMP library that torch itself runs on, or None.

    Threads of our own would have to wait: after an operation torch's spin for milliseconds, in case
    there is another, and leave no core free.
    """
    for path in (Path(torch.__file__).parent / "lib").glob("lib*omp*"):
        if parallel := getattr(ctypes.CDLL(str(path)), "GOMP_parallel", None):
            parallel.restype = None
            return parallel
    return None


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="ncp-agents")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
