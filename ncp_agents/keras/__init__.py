"""CfC and LTC neurons for Keras 3, on TensorFlow, JAX or torch: cells and sequence layers.

Where KERAS_BACKEND is not set and TensorFlow is not installed, Keras runs on torch.
"""

from ncp_agents.keras.backend import BACKEND  # noqa: F401  # first: it imports Keras
from ncp_agents.keras.cfc import CfC
from ncp_agents.keras.cfc_cell import CfCCell
from ncp_agents.keras.ltc import LTC
from ncp_agents.keras.ltc_cell import LTCCell
from ncp_agents.keras.memory_cell import MixedMemoryRNN
from ncp_agents.keras.wired_cfc_cell import WiredCfCCell

__all__ = ["LTC", "CfC", "CfCCell", "LTCCell", "MixedMemoryRNN", "WiredCfCCell"]
