"""The Keras port on TensorFlow: layers for `tf.keras` models.

They work in `tf.function`, with and without XLA, and `model.export` writes them as a SavedModel.
For TFLite convert a model of one step whose state goes in and comes out: `layer.cell(x, [state])`.
"""

from importlib.util import find_spec

if find_spec("tensorflow") is None:
    raise ImportError("ncp_agents.tf needs TensorFlow: pip install 'ncp-agents[tf]'")

from ncp_agents.keras import LTC, CfC, CfCCell, LTCCell, MixedMemoryRNN, WiredCfCCell
from ncp_agents.keras.backend import BACKEND

if BACKEND != "tensorflow":
    raise ImportError(
        f"ncp_agents.tf needs Keras on TensorFlow, but it runs on {BACKEND}: use "
        "ncp_agents.keras, or set KERAS_BACKEND=tensorflow before Keras is imported"
    )

__all__ = ["LTC", "CfC", "CfCCell", "LTCCell", "MixedMemoryRNN", "WiredCfCCell"]
