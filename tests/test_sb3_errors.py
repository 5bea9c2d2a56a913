"""Policies refuse wrong options and observations that do not fit, in one line with the remedy."""

import numpy as np
import pytest
from gymnasium import spaces
from random_env import BOTH, ROW
from stable_baselines3.common.torch_layers import NatureCNN

from ncp_agents.sb3 import CnnNcpPolicy, MlpNcpPolicy, MultiInputNcpPolicy

REST = (spaces.Discrete(3), lambda _: 1e-3)  # actions and learning rate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic": "circit"}, "critic 'circit' is unknown; did you mean 'circuit'"),
        ({"cell": "cfcc"}, "cell 'cfcc' is unknown; did you mean 'cfc'"),
        (
            {"wiring": {"kind": "AutNCP", "units": 32, "output_size": 8}},
            "wiring 'AutNCP' is unknown; did you mean 'AutoNCP'",
        ),
        ({"circuit_kwargs": {"mode": "pur"}}, "mode 'pur' is unknown; did you mean 'pure'"),
        ({"circuit_kwargs": {"proj_size": 4}}, "circuit_kwargs has proj_size=4, expected none"),
        (
            {"critic": "circuit", "share_features_extractor": False},
            "critic='circuit' never reads; expected 'circuit\\+encoder' or 'encoder'",
        ),
    ],
)
def test_wrong_options_are_refused_with_the_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        MlpNcpPolicy(ROW, *REST, **options)


@pytest.mark.parametrize(
    ("policy", "space", "message"),
    [
        (
            CnnNcpPolicy,
            spaces.Box(0, 255, (1, 19, 19), np.uint8),
            r"\(1, 19, 19\), uint8\), expected an image \(C, H, W\) of at least 20 x 20 pixels",
        ),
        (CnnNcpPolicy, ROW, r"\(3,\), float32\), expected an image \(C, H, W\).*MlpNcpPolicy"),
        (MultiInputNcpPolicy, ROW, r"\(3,\), float32\), expected a Dict; MlpNcpPolicy"),
        (
            MultiInputNcpPolicy,
            spaces.Dict({"eye": spaces.Box(0, 255, (3, 30, 40), np.uint8)}),
            r"\(3, 30, 40\), uint8\), expected an image \(C, H, W\) of at least 36 x 36 pixels",
        ),
        (MlpNcpPolicy, BOTH, r"Dict\(.*, expected one that is not a Dict; MultiInputNcpPolicy"),
    ],
)
def test_an_observation_space_that_does_not_fit_is_refused(policy, space, message):
    with pytest.raises(ValueError, match=message) as error:
        policy(space, *REST)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", [20, 21, 35])
def test_the_smallest_image_fits(side):
    CnnNcpPolicy(spaces.Box(0, 255, (1, side, side), np.uint8), *REST)
    with pytest.raises(ValueError, match="at least 36 x 36"):
        CnnNcpPolicy(
            spaces.Box(0, 255, (1, side, side), np.uint8),
            *REST,
            features_extractor_class=NatureCNN,
        )
