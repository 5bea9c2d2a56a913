"""Keras 3 with our layers among its own: `layers`, `models`, `activations`, `backend`.

Where KERAS_BACKEND is not set and TensorFlow is not installed, Keras runs on torch.
"""

from ncp_agents.keras.backend import BACKEND  # noqa: F401  # first: it imports Keras
from ncp_agents.mini_keras import activations, backend, layers, models

__all__ = ["activations", "backend", "layers", "models"]
