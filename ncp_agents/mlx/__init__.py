"""CfC and LTC neurons for MLX: cells (one step) and layers (sequences).

Parameters have the names and shapes of the torch port, so that one safetensors file serves both:
`layer.load_weights(file)` and `layer.save_weights(file)` here, `safetensors.torch` there.
"""

try:
    import mlx.core  # noqa: F401
except ImportError as error:
    raise ImportError("ncp_agents.mlx needs MLX: pip install 'ncp-agents[mlx]'") from error

from ncp_agents.mlx.cfc import CfC
from ncp_agents.mlx.cfc_cell import CfCCell
from ncp_agents.mlx.ltc import LTC
from ncp_agents.mlx.ltc_cell import LTCCell
from ncp_agents.mlx.wired_cfc_cell import WiredCfCCell

__all__ = ["LTC", "CfC", "CfCCell", "LTCCell", "WiredCfCCell"]
