"""Compares the Triton kernels with plain torch on a device; a script of test_triton.py.

On the CPU, in Triton's interpreter, the operators' functions are registered for the CPU first.
"""

import sys

import torch
from kernel_parity import assert_equals_plain

from ncp_agents.torch import LTC, CfC, kernels
from ncp_agents.torch.fused_weights import fuse
from ncp_agents.torch.kernels import cfc, cfc_triton, ltc, ltc_triton
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected

CIRCUITS = {
    "one neuron": lambda: CfC(3, 1, backbone_units=0),
    "dense": lambda: CfC(3, 17, backbone_units=0),
    "no_gate": lambda: CfC(3, AutoNCP(20, 4), mode="no_gate"),
    "wired": lambda: CfC(3, AutoNCP(40, 9)),
    "wired, uneven": lambda: CfC(3, NCP(7, 3, 1, 2, 2, 1, 2)),
    "one layer": lambda: CfC(3, FullyConnected(9, 4)),
    "ltc": lambda: LTC(3, AutoNCP(20, 4)),
    "ltc, dense": lambda: LTC(3, 5, ode_unfolds=2),
}


def take_over_the_cpu() -> torch.library.Library:
    """Let CPU tensors run the Triton kernels."""
    library = torch.library.Library("ncp_agents", "IMPL")
    for name, function in (
        ("cfc", cfc_triton.forward),
        ("cfc_backward", cfc_triton.backward),
        ("ltc_unfold", ltc_triton.forward),
        ("ltc_unfold_backward", ltc_triton.backward),
    ):
        library.impl(name, function, "CPU", allow_override=True)
    cfc.DEVICES["cpu"] = cfc_triton.fits
    ltc.fits = lambda membrane, v: kernels.are_on() and ltc_triton.fits(v)
    ltc.run = lambda *args: ltc_triton.run(*args[:-1])
    return library


def main(device: str) -> None:
    library = take_over_the_cpu() if device == "cpu" else None
    torch.manual_seed(0)
    for name, make in CIRCUITS.items():
        for rows in (3,) if name.startswith("ltc") else (3, 21) if device == "cpu" else (70,):
            for with_timespans in (False, True):
                for with_resets in (False, True):
                    assert_equals_plain(make(), rows, with_timespans, with_resets, device)
    assert cfc_triton.fits(fuse(CfC(3, AutoNCP(64, 16)).rnn_cell, 1.0))
    assert not cfc_triton.fits(fuse(CfC(3, AutoNCP(65, 16)).rnn_cell, 1.0))
    assert not cfc_triton.fits(fuse(CfC(3, 20).rnn_cell, 1.0))  # has a backbone
    assert not ltc_triton.fits(torch.zeros(1, 65))
    print(f"{len(CIRCUITS)} circuits are equal", "" if library is None else "(interpreted)")


if __name__ == "__main__":
    main(sys.argv[1])
