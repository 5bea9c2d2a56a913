"""Imports Keras, on torch where nobody chose a framework and TensorFlow is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path


def _choose_backend() -> None:
    """Takes torch where Keras would take a TensorFlow that is not installed.

    A KERAS_BACKEND in the environment stands, and so does a backend other than TensorFlow in
    Keras's configuration file, which Keras writes itself with TensorFlow as the default.
    """
    if "keras" in sys.modules or "KERAS_BACKEND" in os.environ:
        return
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    try:
        configured = json.loads((home / "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError):
        configured = "tensorflow"
    if configured == "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        os.environ["KERAS_BACKEND"] = "torch"


_choose_backend()
try:
    import keras
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise ImportError(
            f"Keras is to run on {error.name}, which is not there: pip install {error.name}, or "
            "choose another KERAS_BACKEND: tensorflow, jax or torch"
        ) from error
    raise ImportError(
        "ncp_agents.keras needs keras: pip install 'ncp-agents[keras]', or 'ncp-agents[tf]' for "
        "TensorFlow underneath"
    ) from error

BACKEND: str = keras.config.backend()
