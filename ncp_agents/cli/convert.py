"""`ncp-agents export | convert`: policies and layers for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from ncp_agents.cli.parsing import parse


@dataclass(frozen=True)
class Export:
    """Write a saved policy as one ONNX file, once onnxruntime has played a game just as it does.

        ncp-agents export pong-cfc
        python scripts/play_onnx.py pong-cfc.onnx

    Needs the extra 'onnx'.
    """

    policy: tyro.conf.Positional[str]  # a folder, or a name that `ncp-agents policies` lists
    output: Path | None = None  # the file; default <policy>.onnx
    sequence: bool = False  # of whole sequences, of any length, instead of one step


@dataclass(frozen=True)
class Convert:
    """Convert a CfC or LTC layer from one framework's file to another's.

        ncp-agents convert pong-cfc circuit.keras
        ncp-agents convert circuit.keras circuit.safetensors

    A .safetensors file has the names of torch's state dict, which the MLX port reads too.
    """

    source: tyro.conf.Positional[Path]  # .safetensors, .keras, or a saved policy
    target: tyro.conf.Positional[Path]  # .safetensors or .keras


def export(arguments: Sequence[str]) -> int:
    choice = parse(Export, arguments, "export")

    from ncp_agents.agents.saved_policy import load
    from ncp_agents.agents.zoo import find
    from ncp_agents.export.onnx import export_command

    export_command(load(find(choice.policy)), choice.output, choice.sequence)
    return 0


def convert(arguments: Sequence[str]) -> int:
    choice = parse(Convert, arguments, "convert")

    from ncp_agents.export.convert import convert as convert_file

    convert_file(choice.source, choice.target)
    print(f"layer: {choice.target}")
    return 0
