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
    missing_policy,
    open_run,
    parse_with_recipe,
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
    options = parse_with_recipe(Train, arguments, "train")
    if split_policy(arguments)[0] is None:
        if not options.resume:
            raise missing_policy("train")
        if options.run is None:
            raise UserError("which run? name its folder, --run FOLDER, or its policy")

    from ncp_agents.cli.curves import draw_training
    from ncp_agents.torch.threads import use_threads
    from ncp_agents.training.interrupts import InterruptHandler
    from ncp_agents.training.run_folder import default_run_folder
    from ncp_agents.training.train import train

    use_threads(options.threads)
    path = options.run or default_run_folder(options.recipe)
    run = open_run(path, options, arguments, "train", "steps")
    with InterruptHandler() as interrupts:
        done = train(
            run,
            resume=options.resume,
            should_stop=interrupts.should_stop,
            on_progress=draw_training,
        )
    code = 0 if interrupts.received is None else SIGNALLED + interrupts.received
    if code and done.steps < run.recipe.steps:
        print(
            f"stopped at {done.steps:,} of {run.recipe.steps:,} steps, all saved; continue with: "
            f"ncp-agents train --run {shlex.quote(str(path))} --resume"
        )
        return code
    print(
        f"{done.steps:,} steps in {done.seconds / 60:.1f} minutes; policy {run.policy}, "
        f"curve {run.curve}\nevaluate it: ncp-agents evaluate {shlex.quote(str(run.policy))}"
    )
    if options.save is not None:
        run.copy_policy(options.save)
        print(f"saved to {options.save}")
    return code
