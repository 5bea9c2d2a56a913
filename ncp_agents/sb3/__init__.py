"""Circuits inside stable-baselines3."""

from ncp_agents.sb3.features_extractor import NCPFeaturesExtractor
from ncp_agents.sb3.policies import CnnNcpPolicy, MlpNcpPolicy, MultiInputNcpPolicy
from ncp_agents.sb3.sequence_ppo import SequencePPO

__all__ = [
    "CnnNcpPolicy",
    "MlpNcpPolicy",
    "MultiInputNcpPolicy",
    "NCPFeaturesExtractor",
    "SequencePPO",
]
