"""A game and the circuit that played it as one HTML file, which needs no network."""

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


def write_page(path: Path, trace: Trace, circuit_graph: CircuitGraph, title: str) -> None:
    """Write the page; `path` is replaced once it is whole.

    The numbers in it are the trace's own, not rounded.

    Args:
        path: ends in .html.

    Raises:
        UserError: `path` has another ending.
    """
    check_page_path(path)
    here = resources.files(__name__)
    page = (here / "page.html").read_text(encoding="utf-8")
    style = (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    # "<" would end the element that holds the data.
    data = json.dumps(_data(trace, circuit_graph, title), separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    for place, content in (
        (
            "<title>A game and the circuit that plays it</title>",
            f"<title>{html.escape(title)}</title>",
        ),
        ('<link rel="stylesheet" href="page.css">', f"<style>\n{style}</style>"),
        (
            '<script id="data" type="application/json">',
            f'<script id="data" type="application/json">{data}',
        ),
        (
            '<script type="module" src="page.js"></script>',
            f'<script type="module">\n{script}</script>',
        ),
    ):
        assert page.count(place) == 1, place
        page = page.replace(place, content)
    write_text(path, page)


def check_page_path(path: Path) -> None:
    """Raises:
    UserError: `path` does not end in .html.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"page {path} ends in {path.suffix!r}, expected .html")


def _data(trace: Trace, circuit_graph: CircuitGraph, title: str) -> dict[str, Any]:
    height, width = trace.screens.shape
    signals = trace.signals
    most, strongest, mean = circuit_graph.scales(signals)
    arrays = {
        "signals": signals,
        "values": trace.values,
        "returns": trace.returns,
        "rewards": trace.rewards,
        "taken": trace.actions.astype(np.int32),
        "palette": trace.screens.palette,
        "most": most,
        "strongest": strongest,
        "mean": mean,
        "drawn": circuit_graph.drawn.astype(np.uint8),
    }
    for index, group in enumerate(circuit_graph.synapses):
        for name, values in vars(group).items():
            whole = np.issubdtype(values.dtype, np.integer)
            arrays[f"{name} {index}"] = values.astype(np.int32) if whole else values
    places = circuit_graph.places()
    return {
        "title": title,
        "about": circuit_graph.about,
        "steps": len(trace),
        "fps": STEPS_PER_SECOND,
        "width": width,
        "height": height,
        "inputs": circuit_graph.inputs,
        "names": circuit_graph.names,
        "places": places.round(5).tolist(),
        "columns": [
            {
                "kind": column.kind,
                "nodes": column.nodes.tolist(),
                "cells": circuit_graph.is_block(column),
            }
            for column in circuit_graph.columns
        ],
        "in_blocks": circuit_graph.in_blocks,
        "synapses": [{"kind": g.kind, "fields": [*vars(g)]} for g in circuit_graph.synapses],
        "segment": SEGMENT,
        "screens": [base64.b64encode(segment).decode() for segment in trace.screens.segments],
        "arrays": {
            name: {"type": str(values.dtype), "deflated": _deflated(values)}
            for name, values in arrays.items()
        },
    }


def _deflated(values: np.ndarray) -> str:
    """Little-endian bytes → zlib → base64."""
    little = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 9)).decode()
