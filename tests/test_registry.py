"""Look-up by name: the entry, or an error that suggests a near one."""

import pytest

from ncp_agents import registry
from ncp_agents.registry import UnknownNameError


def message(name, choices, kind="wiring"):
    with pytest.raises(UnknownNameError) as error:
        registry.get(kind, name, choices)
    return str(error.value)


def test_mapping_gives_the_entry_and_a_list_gives_the_name():
    assert registry.get("number", "two", {"one": 1, "two": 2}) == 2
    assert registry.get("number", "two", ["one", "two"]) == "two"
    assert registry.get("number", "two", (name for name in ("one", "two"))) == "two"


def test_near_miss_is_suggested():
    assert message("AutNCP", ["NCP", "AutoNCP"]) == (
        "wiring 'AutNCP' is unknown; did you mean 'AutoNCP'? known: NCP, AutoNCP"
    )


def test_case_matters_for_the_entry_but_not_for_the_suggestion():
    assert "did you mean 'AutoNCP'?" in message("AUTONCP", ["Random", "AutoNCP"])


def test_without_a_near_one_all_are_listed():
    assert message("zzz", ["pong", "qbert"], "game") == "game 'zzz' is unknown; known: pong, qbert"


def test_long_lists_show_only_the_closest():
    games = [f"game_{i:02}" for i in range(40)] + ["pong"]
    text = message("pomg", games, "game")
    assert text == "game 'pomg' is unknown; did you mean 'pong'? closest of 41: pong"
    assert "41 are known, among them game_00" in message("zzz", games, "game")


def test_a_name_that_is_no_string_is_unknown_too():
    assert "wiring 3 is unknown" in message(3, ["NCP"])
    assert "wiring ['NCP'] is unknown" in message(["NCP"], ["NCP"])


def test_the_error_is_a_value_error():
    assert issubclass(UnknownNameError, ValueError)
