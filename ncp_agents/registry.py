"""Look-up by name, where an unknown name is an error that suggests a near one."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ncp_agents.errors import UserError, shown

MAX_LISTED = 12  # names; a longer list would bury the suggestion


class UnknownNameError(UserError):
    """An unknown name; the message suggests a near one."""


def get(kind: str, name: str, choices: Mapping[str, Any] | Iterable[str]) -> Any:
    """Return the entry of `choices` called `name`, or the name itself if `choices` is a plain list.

    Args:
        kind: what the message calls it: "wiring", "game", ...
        name: the name that the user gave; case-sensitive.
        choices: name → entry, or the names alone.

    Raises:
        UnknownNameError: no such name.
    """
    entries = choices if isinstance(choices, Mapping) else {choice: choice for choice in choices}
    if isinstance(name, str) and name in entries:
        return entries[name]
    raise UnknownNameError(did_you_mean(kind, name, list(entries)))


def did_you_mean(kind: str, name: object, known: list[str]) -> str:
    """Return a message that a name is unknown, with the nearest known ones."""
    by_lower_case = {choice.lower(): choice for choice in known}
    matches = get_close_matches(str(name).lower(), list(by_lower_case), n=5, cutoff=0.5)
    near = [by_lower_case[match] for match in matches]
    if len(known) <= MAX_LISTED:
        listing = f"known: {', '.join(known)}"
    elif near:
        listing = f"closest of {len(known)}: {', '.join(near)}"
    else:
        listing = f"{len(known)} are known, among them {', '.join(sorted(known)[:5])}"
    suggestion = f" did you mean {near[0]!r}?" if near else ""
    return f"{kind} {shown(name)} is unknown;{suggestion} {listing}"
