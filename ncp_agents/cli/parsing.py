"""Options as dataclasses that tyro reads, and recipes as the defaults of options.

What this module imports is light: a misspelt option or policy is answered without loading torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import tyro

from ncp_agents.agents.recipe import RECIPE, Recipe, read_recipe
from ncp_agents.agents.zoo import find
from ncp_agents.errors import UserError

if TYPE_CHECKING:
    from ncp_agents.training.run_folder import RunFolder

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
    return read_recipe(path if path.suffix == ".toml" else find(name) / RECIPE)


def missing_policy(command: str) -> UserError:
    """Return the error where a command is given no policy."""
    return UserError(f"which policy? name one: ncp-agents {command} pong-cfc; or see: policies")


def parse_with_recipe(kind: type[T], arguments: Sequence[str], command: str) -> T:
    """Return the options in `arguments`, with the recipe of the policy before them as default."""
    policy, rest = split_policy(arguments)
    base = Recipe() if policy is None else find_recipe(policy)
    return parse(kind, rest, f"{command} POLICY", default=cast(Any, kind)(base))


def open_run(
    path: Path, options: Any, arguments: Sequence[str], command: str, *changeable: str
) -> RunFolder:
    """Return the run in a new folder or, with --resume, that in an old one.

    Args:
        path: of the folder.
        options: as `parse_with_recipe` returned them, with `recipe`, `resume` and `save`.
        arguments: after the command. Where they name a recipe file, it must agree with the run's;
            of a policy only the name is compared.
        command: for the usage.
        changeable: fields of the recipe that may differ.

    Raises:
        UserError: the run has other settings than the command line; a folder that cannot be
            written, or holds something else.
    """
    from ncp_agents.agents.saved_policy import check_destination
    from ncp_agents.training.run_folder import RunFolder

    recipe, (policy, rest) = options.recipe, split_policy(arguments)
    if options.resume:
        stored = RunFolder.open(path).recipe
        if policy is None or not policy.endswith(".toml"):
            if policy is not None and stored.name != recipe.name:
                raise UserError(f"{path} is a run of {stored.name!r}, not of {recipe.name!r}")
            kind = type(options)
            recipe = parse(kind, rest, f"{command} POLICY", default=kind(stored)).recipe
            policy = "these options"
        if replace(stored, **{name: getattr(recipe, name) for name in changeable}) != recipe:
            raise UserError(
                f"{path} has other settings than {policy}; leave them out to continue with its "
                f"own, {path / RECIPE}"
            )
    if options.save is not None:
        check_destination(options.save, recipe)
    return RunFolder(path, recipe) if options.resume else RunFolder.create(path, recipe)
