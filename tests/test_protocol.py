"""Atari protocols: the two named ones, what changes for evaluation, what is refused."""

import dataclasses

import pytest

from ncp_agents.envs.protocol import PROTOCOLS, AtariProtocol, protocol
from ncp_agents.registry import UnknownNameError


def test_v4_trains_on_lives_without_sticky_actions():
    v4 = PROTOCOLS["v4"]

    assert v4.sticky_actions == 0.0
    assert v4.life_loss
    assert v4.clip_rewards
    assert v4.fire_on_reset


def test_v5_trains_on_whole_games_with_sticky_actions():
    v5 = PROTOCOLS["v5"]

    assert v5.sticky_actions == 0.25
    assert not v5.life_loss
    assert not v5.fire_on_reset
    assert not v5.full_action_space


@pytest.mark.parametrize("name", PROTOCOLS)
def test_evaluation_changes_only_clipping(name):
    training = PROTOCOLS[name]
    evaluation = training.evaluation()

    assert not evaluation.clip_rewards
    assert (evaluation.noop_max, evaluation.max_frames) == (30, 108_000)
    assert dataclasses.replace(evaluation, clip_rewards=training.clip_rewards) == training


def test_overrides_change_what_they_name():
    stacked = protocol("v4", frame_stack=4)

    assert stacked == dataclasses.replace(PROTOCOLS["v4"], frame_stack=4)
    assert protocol("v5") == PROTOCOLS["v5"]


def test_a_protocol_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["v4"].frame_skip = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("sticky_actions", 1.0, r"0\.0 <= p < 1\.0"),
        ("sticky_actions", -0.1, r"0\.0 <= p < 1\.0"),
        ("sticky_actions", float("nan"), r"0\.0 <= p < 1\.0"),
        ("frame_skip", 0, "integer >= 1; usual is 4"),
        ("frame_skip", True, "integer >= 1; usual is 4"),
        ("frame_stack", 0, "integer >= 1; usual is 1"),
        ("frame_size", 8.5, "integer >= 1; usual is 84"),
        ("noop_max", -1, "integer >= 0; usual is 30"),
        ("max_frames", 0, "integer >= 1; usual is 108000"),
    ],
)
def test_a_field_out_of_range_is_refused(field, value, expected):
    with pytest.raises(ValueError, match=f"{field} is .*, expected .*{expected}"):
        AtariProtocol(**{field: value})


def test_wrong_names_are_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'v"):
        protocol("v3")
    with pytest.raises(UnknownNameError, match=r"protocol field 'frameskip'.*'frame_skip'"):
        protocol("v4", frameskip=4)
