"""Named things: an entry by its name, or an error with "did you mean"."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ncp_agents.errors import UserError

SHORT_LIST = 12  # names; a longer list would bury the suggestion in the message


class UnknownNameError(UserError):
    """A name that is in no registry; the message suggests a near one."""


def get(kind: str, name: str, choices: Mapping[str, Any] | Iterable[str]) -> Any:
    """Return the entry of `choices` called `name`, or the name itself if `choices` is a plain list.

    Args:
        kind: what is looked up, as the message shall call it: "wiring", "game", ...
        name: what the user wrote; upper and lower case count.
        choices: name -> entry, or the names alone.

    Raises:
        UnknownNameError: with the nearest known names.
    """
    entries = choices if isinstance(choices, Mapping) else {choice: choice for choice in choices}
    if isinstance(name, str) and name in entries:
        return entries[name]
    raise UnknownNameError(did_you_mean(kind, name, list(entries)))


def did_you_mean(kind: str, name: object, known: list[str]) -> str:
    """Say that a name is unknown, and which known ones are near it."""
    by_lower_case = {choice.lower(): choice for choice in known}
    near = [
        by_lower_case[match]
        for match in get_close_matches(str(name).lower(), list(by_lower_case), n=5, cutoff=0.5)
    ]
    guess = f"; did you mean {near[0]!r}?" if near else ";"
    if len(known) <= SHORT_LIST:
        listing = f"known: {', '.join(known)}"
    elif near:
        listing = f"closest of {len(known)}: {', '.join(near)}"
    else:
        listing = f"{len(known)} are known, among them {', '.join(sorted(known)[:5])}"
    return f"{kind} {name!r} is unknown{guess} {listing}"
