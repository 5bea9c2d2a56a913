"""`ncp-agents convert`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ncp_agents.cli.parsing import parse, shown_as


@dataclass(frozen=True)
class Convert:
    """Convert a CfC or LTC layer from one framework's file to another's.

    A .safetensors file has the names of torch's state dict, which the MLX port reads, too.

        ncp-agents convert pong-cfc circuit.keras
        ncp-agents convert circuit.keras circuit.safetensors
    """

    source: tyro.conf.Positional[Annotated[Path, shown_as("SOURCE")]]
    """.safetensors, .keras, or a saved policy"""
    target: tyro.conf.Positional[Annotated[Path, shown_as("TARGET")]]
    """.safetensors or .keras"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Convert, arguments, "convert")

    from ncp_agents.export.convert import convert

    convert(options.source, options.target)
    print(f"layer: {options.target}")
    return 0
