"""The compiled kernels, as far as the package was installed with them, and how they are called.

`kernels.h` declares the functions and their arguments; cffi reads the same text as the compiler.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from cffi import FFI
from torch import Tensor

# The instruction sets that `hatch_build.py` makes a library for, by torch's names; best first.
VARIANTS = {"AVX512": "avx512", "AVX2": "avx2"}
HERE = Path(__file__).parent

ffi: Any = FFI()
ffi.cdef((HERE / "kernels.h").read_text(encoding="utf-8"))
ffi.cdef("void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned);")
NULL = ffi.NULL

MIN_PARALLEL_OPS = 2e6  # multiplications, some 30 us; waking a thread takes about as long


def path(variant: str) -> Path:
    """Return where the library of an instruction set is.

    Its name holds a digest of the sources: a library of older ones would misread its arguments.
    """
    sources = sorted(HERE.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    suffix = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
    return HERE / f"cpu-{variant}-{digest}.{suffix}"


@cache
def library() -> Any:
    """Return the fastest library that this machine runs, or None."""
    best = VARIANTS.get(torch.backends.cpu.get_cpu_capability())
    known = [*VARIANTS.values()]
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


@torch.compiler.assume_constant_result
def available() -> bool:
    """Return whether there is a library for this machine."""
    return library() is not None


@torch.compiler.assume_constant_result
def constant(name: str) -> int:
    """Return a constant of `kernels.h`, where there is a library."""
    return getattr(library(), name)


def load(path: Path) -> Any:
    """Return the library in a file."""
    return ffi.dlopen(str(path))


def padded(count: int) -> int:
    """Return as many floats in whole vectors of the library."""
    vector = library().vector_width()
    return -(-count // vector) * vector


def parallel_rows(kernel: str, call: Any, rows: int, operations: float) -> None:
    """Run a kernel on all rows, in parts that torch's number of threads share.

    Args:
        kernel: the function's name.
        call: its argument, a structure of `kernels.h`; what it points into must outlive the call.
        rows: of the batch. A part's number is below `torch.get_num_threads()`.
        operations: multiplications in all; little work stays in one part.
    """
    compiled, threads = library(), torch.get_num_threads()
    parts = min(threads if operations > MIN_PARALLEL_OPS and _openmp() else 1, rows)
    if compiled.run_rows(getattr(compiled, kernel), call, rows, parts, threads, _openmp()):
        raise MemoryError("not enough memory for the kernel's scratch space")


@cache
def _openmp() -> Any:
    """Return `GOMP_parallel` of the OpenMP library that torch itself runs on, or NULL.

    Threads of our own would have to wait: after an operation torch's spin for milliseconds, in case
    there is another, and leave no core free.
    """
    for path in (Path(torch.__file__).parent / "lib").glob("lib*omp*"):
        try:
            return ffi.cast("void *", ffi.addressof(ffi.dlopen(str(path)), "GOMP_parallel"))
        except AttributeError:  # another OpenMP
            continue
    return NULL


def floats(tensor: Tensor | None) -> Any:
    """Return the address of a tensor's float32 values, NULL for None."""
    return NULL if tensor is None else ffi.cast("float *", tensor.data_ptr())


def bytes_(tensor: Tensor | None) -> Any:
    """Return the address of a tensor's bool or uint8 values, NULL for None."""
    return NULL if tensor is None else ffi.cast("uint8_t *", tensor.data_ptr())


def integers(tensor: Tensor) -> Any:
    """Return the address of a tensor's int32 values."""
    return ffi.cast("int32_t *", tensor.data_ptr())
