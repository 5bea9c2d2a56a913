"""An episode and the circuit that acted in it as one HTML file, which needs no network."""

from __future__ import annotations

import base64
import html
import json
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.errors import UserError
from ncp_agents.explain.activations import Trace
from ncp_agents.explain.circuit_graph import CircuitGraph
from ncp_agents.explain.frame_store import SEGMENT
from ncp_agents.files import write_text
from ncp_agents.rendering.circuit_layout import CircuitLayout


def write_page(path: Path, trace: Trace, graph: CircuitGraph, title: str) -> None:
    """Write the page; `path` is replaced once it is whole.

    The page has the trace's exact numbers.

    Args:
        path: the file.
        trace: the steps.
        graph: the circuit.
        title: of the page.
    """
    here = resources.files(__name__)
    page, style, script = (
        (here / f"page.{ending}").read_text(encoding="utf-8") for ending in ("html", "css", "js")
    )
    # "<" would end the element that holds the data.
    data = json.dumps(_data(trace, graph, title), separators=(",", ":")).replace("<", "\\u003c")
    for place, content in (
        ("<title>An episode and its circuit</title>", f"<title>{html.escape(title)}</title>"),
        ('<link rel="stylesheet" href="page.css">', f"<style>\n{style}</style>"),
        ('<script id="data" type="application/json">', None),
        (
            '<script type="module" src="page.js"></script>',
            f'<script type="module">\n{script}</script>',
        ),
    ):
        page = page.replace(place, content or place + data)
    write_text(path, page)


def check_page_path(path: Path) -> None:
    """Check that a path ends in .html.

    Raises:
        UserError: another ending.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"page {path} ends in {path.suffix!r}, expected .html")


def _data(trace: Trace, graph: CircuitGraph, title: str) -> dict[str, Any]:
    height, width = trace.frames.shape
    layout = CircuitLayout(graph)
    node_scale, synapse_scale, mean = layout.scales(trace.signals)
    arrays = {
        "signals": trace.signals,
        "values": trace.values,
        "returns": trace.returns,
        "rewards": trace.rewards,
        "taken": trace.actions.astype(np.int32),
        "palette": trace.frames.palette,
        "nodeScale": node_scale,
        "synapseScale": synapse_scale,
        "mean": mean,
        "drawn": layout.drawn.astype(np.uint8),
    }
    for index, group in enumerate(graph.synapses):
        for name, values in vars(group).items():
            whole = np.issubdtype(values.dtype, np.integer)
            arrays[f"{name} {index}"] = values.astype(np.int32) if whole else values
    return {
        "title": title,
        "about": graph.about,
        "steps": len(trace),
        "fps": STEPS_PER_SECOND,
        "width": width,
        "height": height,
        "inputs": graph.inputs,
        "names": graph.names,
        "places": layout.places.round(5).tolist(),
        "columns": [
            {
                "kind": column.kind,
                "nodes": column.nodes.tolist(),
                "cells": layout.is_block(column),
            }
            for column in graph.columns
        ],
        "in_blocks": layout.in_blocks,
        "synapses": [{"kind": g.kind, "fields": [*vars(g)]} for g in graph.synapses],
        "segment": SEGMENT,
        "frames": [base64.b64encode(segment).decode() for segment in trace.frames.segments],
        "arrays": {
            name: {"type": str(values.dtype), "deflated": _deflated(values)}
            for name, values in arrays.items()
        },
    }


def _deflated(values: np.ndarray) -> str:
    """Little-endian bytes → zlib → base64."""
    little = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 9)).decode()
