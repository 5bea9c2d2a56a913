"""Imports Keras, on torch where KERAS_BACKEND is not set and TensorFlow is not installed."""

from __future__ import annotations

import os
from importlib.util import find_spec

if "KERAS_BACKEND" not in os.environ and find_spec("tensorflow") is None:
    os.environ["KERAS_BACKEND"] = "torch"  # Keras's default is TensorFlow

try:
    import keras
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise ImportError(
            f"Keras needs {error.name}, which is not installed: pip install {error.name}, or set "
            "KERAS_BACKEND to tensorflow, jax or torch"
        ) from error
    raise ImportError(
        "ncp_agents.keras needs keras: pip install 'ncp-agents[keras]', or 'ncp-agents[tf]'"
    ) from error

BACKEND: str = keras.config.backend()
