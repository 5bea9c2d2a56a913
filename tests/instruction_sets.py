"""The compiled libraries that this machine runs; shared by the tests of the kernels."""

import torch

from ncp_agents.torch.kernels import cfc_cpu, pipeline
from ncp_agents.torch.kernels import library as compiled

HERE = compiled.VARIANTS.get(torch.backends.cpu.get_cpu_capability(), "generic")
VARIANTS = {"avx512": ["avx512", "avx2"]}.get(HERE, [HERE])


def use_library(variant, monkeypatch):
    """Until the test's end; `make install` has compiled all of them."""
    one = compiled.load(compiled.path(variant))
    for module in (compiled, cfc_cpu, pipeline):
        monkeypatch.setattr(module, "library", lambda: one)
