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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AutNCP", "wiring 'AutNCP' is unknown; did you mean 'AutoNCP'? known: NCP, AutoNCP"),
        ("AUTONCP", "wiring 'AUTONCP' is unknown; did you mean 'AutoNCP'? known: NCP, AutoNCP"),
        ("zzz", "wiring 'zzz' is unknown; known: NCP, AutoNCP"),
        (3, "wiring 3 is unknown; known: NCP, AutoNCP"),
        (["NCP"], "wiring ['NCP'] is unknown; did you mean 'NCP'? known: NCP, AutoNCP"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name, expected):
    assert message(name, ["NCP", "AutoNCP"]) == expected


def test_messages_are_short():
    games = [f"game_{i:02}" for i in range(40)] + ["pong"]
    text = message("pomg", games, "game")
    assert text == "game 'pomg' is unknown; did you mean 'pong'? closest of 41: pong"
    assert "41 are known, among them game_00" in message("zzz", games, "game")
    assert len(message("z" * 10**5, games)) < 200
