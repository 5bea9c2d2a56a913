"""From words to options: dataclasses read by tyro, a mistake told in one line."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import tyro

from ncp_agents.agents.recipe import Recipe, read_recipe
from ncp_agents.errors import UserError

WORK_FAILED = 1  # exit code where the work failed, not the user
USER_MISTAKE = 2
SIGNALLED = 128  # plus the signal's number, as shells report it

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], command: str, default: T | None = None) -> T:
    """Tyro's reading of the arguments, with its boxed error cut down to one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if default is None:
                return tyro.cli(kind, args=arguments, prog=f"ncp-agents {command}")
            return tyro.cli(kind, args=arguments, prog=f"ncp-agents {command}", default=default)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise UserError(_one_line(said.getvalue())) from None
    except ValueError as error:  # of the outermost dataclass, which tyro lets through
        raise UserError(str(error)) from None


def _one_line(box: str) -> str:
    """The first paragraph of tyro's box below its title, and the first option that it suggests."""
    _, *lines = (line.strip("╭╮╰╯│| ") for line in box.splitlines())
    paragraphs = [
        " ".join(group)
        for is_rule, group in itertools.groupby(lines, lambda line: set(line) <= set("─-"))
        if not is_rule
    ]
    suggestion = re.search(r"Perhaps you meant:\W*(--[\w.-]+)", box)
    return paragraphs[0] + (f"; did you mean {suggestion[1]}?" if suggestion else "")


def named_first(arguments: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """What the first argument names, None where it is an option; and the arguments after it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    return None, arguments


def named_recipe(name: str) -> Recipe:
    """The recipe of a file, of a policy folder, or of a policy by name."""
    from ncp_agents.agents.saved_policy import RECIPE
    from ncp_agents.agents.zoo import find

    path = Path(name)
    if path.suffix == ".toml":
        return read_recipe(path)
    return read_recipe(find(name) / RECIPE)


def refuse_unused(choice: T, base: T, command: str, *unused: str) -> None:
    """Refuse options that a command does not read; `unused` are fields, such as "ppo.gamma".

    Raises:
        UserError: one of them is not as in `base`, which is without the command line.
    """
    for name in unused:
        if attrgetter(name)(choice) != attrgetter(name)(base):
            option = name.replace("_", "-")
            raise UserError(f"--{option} has no effect in ncp-agents {command}; leave it out")
