"""Small recurrent Atari agents whose circuit can be watched."""

import ncp_agents.frameworks  # noqa: F401  # before stable-baselines3

__version__ = "0.1.0"
