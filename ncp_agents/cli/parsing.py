"""Options as dataclasses that tyro reads, and recipes as the defaults of options.

What this module imports is light: a misspelt option or policy is answered without loading torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from ncp_agents.agents.recipe import Recipe, read_recipe
from ncp_agents.agents.zoo import find
from ncp_agents.errors import UserError

T = TypeVar("T")


def shown_as(metavar: str, default: str = "") -> Any:
    """Return how the help shows an option whose default is None or empty."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=default and f"(default: {default})")


Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
"""An option that is off unless it is given; there is no --no-..."""


def parse(kind: type[T], arguments: Sequence[str], command: str, default: T | None = None) -> T:
    """Return the options in `arguments`; on a mistake tyro shows it and exits with code 2.

    Args:
        kind: a dataclass.
        arguments: after the command.
        command: for the usage.
        default: a `kind` with the values of options that are not given.

    Raises:
        UserError: a value that the dataclass refuses.
    """
    prog = f"ncp-agents {command}"
    try:
        if default is None:
            return tyro.cli(kind, args=arguments, prog=prog)
        return tyro.cli(kind, args=arguments, prog=prog, default=default)
    except ValueError as error:
        raise UserError(str(error)) from None


def split_policy(arguments: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """Return the first argument, None where it is an option, and the arguments after it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    return None, arguments


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a TOML file, of a policy folder, or of a policy by name."""
    path = Path(name)
    return read_recipe(path if path.suffix == ".toml" else find(name) / "recipe.toml")


def resumed_recipe(
    run: Path,
    stored: Recipe,
    policy: str | None,
    asked: Recipe,
    with_default: Callable[[Recipe], Recipe],
    *changeable: str,
) -> Recipe:
    """Return the recipe to resume a run with.

    Args:
        run: its folder.
        stored: its recipe.
        policy: as named on the command line: a recipe file, which must agree with the run's, or a
            policy, of which only the name is compared; None takes the run's recipe.
        asked: the recipe of the command line, with the policy's as default.
        with_default: the recipe of the command line, with another as default.
        changeable: fields that may differ.

    Raises:
        UserError: the run has other settings than the command line.
    """
    if policy is None or not policy.endswith(".toml"):
        if policy is not None and stored.name != asked.name:
            raise UserError(f"{run} is a run of {stored.name!r}, not of {asked.name!r}")
        asked, policy = with_default(stored), "these options"
    if replace(stored, **{name: getattr(asked, name) for name in changeable}) != asked:
        raise UserError(
            f"{run} has other settings than {policy}; leave them out to continue with its own, "
            f"{run / 'recipe.toml'}"
        )
    return asked
