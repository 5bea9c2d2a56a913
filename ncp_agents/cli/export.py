"""`ncp-agents export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ncp_agents.agents.zoo import find
from ncp_agents.cli.parsing import Flag, parse, shown_as


@dataclass(frozen=True)
class Export:
    """Export a saved policy as one ONNX file.

    The file is written once onnxruntime has taken the same actions as the policy through a whole
    episode.

        ncp-agents export pong-cfc
        python scripts/play_onnx.py pong-cfc.onnx

    Needs the extra 'onnx'.
    """

    policy: tyro.conf.Positional[Annotated[str, shown_as("POLICY")]]
    """name or folder of a saved policy"""
    output: Annotated[Path | None, shown_as("FILE", "<policy>.onnx")] = None
    """the file, .onnx"""
    sequence: Flag = False  # a model of whole sequences, of any length, instead of one step


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Export, arguments, "export")
    folder = find(options.policy)

    from ncp_agents.agents.saved_policy import load
    from ncp_agents.export.onnx import export
    from ncp_agents.files import check_writable

    policy = load(folder)
    output = options.output or Path(f"{policy.name}.onnx")
    check_writable(output, "--output")
    agreement = export(policy, output, options.sequence)
    print(
        f"one episode, {agreement.steps:,} steps: the same actions as the policy's; largest "
        f"difference {agreement.difference:.1e}\nmodel: {output}, "
        f"{output.stat().st_size / 1e6:.2f} MB"
    )
    return 0
