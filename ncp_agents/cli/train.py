"""`ncp-agents train`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ncp_agents.agents.recipe import Recipe
from ncp_agents.cli import SIGNALLED
from ncp_agents.cli.parsing import (
    Flag,
    find_recipe,
    parse,
    resumed_recipe,
    shown_as,
    split_policy,
)
from ncp_agents.errors import UserError


@dataclass(frozen=True)
class Train:
    """Train a policy with PPO, from its recipe, in a run folder.

    POLICY is the name of a policy (`ncp-agents policies` lists them), its folder, or a recipe file.
    Every field of its recipe is an option below, with the recipe's value as default:

        ncp-agents train pong-cfc --seed 2 --ppo.learning-rate 5e-4

    Ctrl-C saves a checkpoint and ends. Continue from it, with or without more --steps:

        ncp-agents train --run runs/pong-cfc-seed2 --resume

    Options of cloning have no effect here.
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    run: Annotated[Path | None, shown_as("FOLDER", "runs/<name>[-continued]-seed<seed>")] = None
    """folder of the run"""
    resume: Flag = False  # continue from the run's checkpoint; only --steps may differ
    save: Annotated[Path | None, shown_as("FOLDER")] = None
    """also copy the trained policy here, such as policies/my-policy"""
    threads: int = 0  # of torch; 0 takes one per core


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    policy, rest = split_policy(arguments)
    base = Recipe() if policy is None else find_recipe(policy)
    options = parse(Train, rest, "train POLICY", default=Train(base))
    if policy is None and not options.resume:
        raise UserError("which policy? name it first: ncp-agents train pong-cfc; or a recipe file")
    if policy is None and options.run is None:
        raise UserError("which run? name its folder, --run FOLDER, or its policy, such as pong-cfc")

    from ncp_agents.agents.saved_policy import check_destination
    from ncp_agents.cli.curves import draw_training
    from ncp_agents.torch.threads import use_threads
    from ncp_agents.training.run_folder import RunFolder, default_run_folder
    from ncp_agents.training.train import train

    use_threads(options.threads)
    recipe = options.recipe
    path = options.run or default_run_folder(recipe)
    if options.resume:
        recipe = resumed_recipe(
            path,
            RunFolder.open(path).recipe,
            policy,
            recipe,
            lambda stored: parse(Train, rest, "train POLICY", default=Train(stored)).recipe,
            "steps",
        )
    if options.save is not None:
        check_destination(options.save, recipe)
    run = RunFolder(path, recipe) if options.resume else RunFolder.create(path, recipe)
    result = train(run, resume=options.resume, on_progress=draw_training)
    done = result.progress
    code = 0 if result.stopped_by is None else SIGNALLED + result.stopped_by
    if code and done.steps < recipe.steps:
        print(
            f"stopped at {done.steps:,} of {recipe.steps:,} steps, all saved; continue with: "
            f"ncp-agents train --run {shlex.quote(str(path))} --resume"
        )
        return code
    print(
        f"{done.steps:,} steps in {done.seconds / 60:.1f} minutes; policy {run.policy}, "
        f"curve {run.curve}\nevaluate it: ncp-agents evaluate {run.policy}"
    )
    if options.save is not None:
        run.copy_policy(options.save)
        print(f"saved to {options.save}")
    return code
