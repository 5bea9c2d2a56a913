"""Atari protocols: the two named ones, what changes for evaluation, what is refused."""

import dataclasses

import pytest

from ncp_agents.envs.protocol import PROTOCOLS, AtariProtocol, protocol
from ncp_agents.registry import UnknownNameError


def test_the_named_protocols():
    default = AtariProtocol()
    assert PROTOCOLS["v4"] == dataclasses.replace(
        default, life_loss=True, clip_rewards=True, fire_on_reset=True
    )
    assert PROTOCOLS["v5"] == dataclasses.replace(default, sticky_actions=0.25, clip_rewards=True)
    assert (default.frame_skip, default.noop_max, default.max_frames) == (4, 30, 108_000)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_evaluation_changes_only_clipping(name):
    training = PROTOCOLS[name]
    evaluation = training.evaluation()
    assert not evaluation.clip_rewards
    assert dataclasses.replace(evaluation, clip_rewards=training.clip_rewards) == training


def test_overrides_change_what_they_name():
    stacked = protocol("v4", frame_stack=4)

    assert stacked == dataclasses.replace(PROTOCOLS["v4"], frame_stack=4)
    assert protocol("v5") == PROTOCOLS["v5"]


def test_a_protocol_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["v4"].frame_skip = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sticky_actions", 1.0),
        ("sticky_actions", -0.1),
        ("sticky_actions", float("nan")),
        ("frame_skip", 0),
        ("frame_skip", True),
        ("frame_stack", 0),
        ("frame_size", 8.5),
        ("noop_max", -1),
        ("max_frames", 0),
    ],
)
def test_a_field_out_of_range_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        AtariProtocol(**{field: value})


def test_wrong_names_are_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'v"):
        protocol("v3")
    with pytest.raises(UnknownNameError, match="'frame_skip'"):
        protocol("v4", frameskip=4)
