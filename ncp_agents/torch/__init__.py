"""CfC and LTC neurons for PyTorch: cells (one step) and layers (sequences)."""

from ncp_agents.torch.cfc import CfC
from ncp_agents.torch.cfc_cell import CfCCell
from ncp_agents.torch.ltc import LTC
from ncp_agents.torch.ltc_cell import LTCCell
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell

__all__ = ["LTC", "CfC", "CfCCell", "LTCCell", "WiredCfCCell"]
