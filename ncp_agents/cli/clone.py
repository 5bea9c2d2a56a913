"""`ncp-agents clone`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.zoo import find
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
class Clone:
    """Clone a policy from demonstrations (behaviour cloning), in a run folder.

    POLICY is the name of a policy (`ncp-agents policies` lists them), its folder, or a recipe file.
    Its recipe describes the network, which is trained from scratch; every field of the recipe is an
    option below. Record demonstrations, clone from them, and continue with PPO:

        ncp-agents record pong-cfc
        ncp-agents clone pong-cfc --demos demos/pong-cfc
        ncp-agents train pong-cfc --from runs/pong-cfc-clone-seed1/policy

    With --dagger the clone then acts itself, and is trained on the actions that a saved policy, the
    teacher, takes for the same observations:

        ncp-agents clone pong-cfc --demos demos/pong-cfc --dagger 3 --teacher pong-cfc

    Ctrl-C ends after the current epoch; the same command with --resume continues. Of the options of
    PPO only --ppo.gamma and --ppo.vf-coef have an effect here, for the critic.
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    demos: Annotated[tuple[Path, ...], shown_as("FOLDER...")] = ()
    """folders of demonstrations, as `ncp-agents record` writes them"""
    run: Annotated[Path | None, shown_as("FOLDER", "runs/<name>-clone-seed<seed>")] = None
    """folder of the run"""
    resume: Flag = False  # continue from the run's checkpoint, with the same settings
    dagger: int = 0  # rounds of DAgger after cloning; usual is 3
    teacher: Annotated[str | None, shown_as("POLICY")] = None
    """of DAgger: a saved policy, by name or folder"""
    save: Annotated[Path | None, shown_as("FOLDER")] = None
    """also copy the cloned policy here, such as policies/my-policy"""
    threads: int = 0  # of torch; 0 takes one per core


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_with_recipe(Clone, arguments, "clone")
    if split_policy(arguments)[0] is None:
        raise missing_policy("clone")
    if not options.demos:
        raise UserError("which demos? --demos FOLDER; record some: ncp-agents record pong-cfc")
    if bool(options.dagger) != bool(options.teacher):
        raise UserError("DAgger takes both --dagger and --teacher: --dagger 3 --teacher pong-cfc")
    teacher = options.teacher and find(options.teacher)

    from ncp_agents.agents.saved_policy import load
    from ncp_agents.cli.curves import draw_cloning
    from ncp_agents.datasets.demonstrations import Demonstrations
    from ncp_agents.imitation.cloning import clone
    from ncp_agents.imitation.dagger import dagger
    from ncp_agents.torch.threads import use_threads
    from ncp_agents.training.interrupts import InterruptHandler
    from ncp_agents.training.run_folder import default_run_folder

    use_threads(options.threads)
    demos = [Demonstrations(folder) for folder in options.demos]
    policy = load(teacher) if teacher else None
    path = options.run or default_run_folder(options.recipe, how="clone")
    run = open_run(path, options, arguments, "clone")
    with InterruptHandler() as interrupt:
        settings: dict[str, Any] = {
            "should_stop": interrupt.should_stop,
            "on_progress": draw_cloning,
        }
        if policy is None:
            done = clone(run, demos, resume=options.resume, **settings)
        else:
            done = dagger(run, demos, policy, options.dagger, **settings)
    if interrupt.received is not None:
        again = shlex.join(["ncp-agents", "clone", *arguments])
        resume = "" if options.resume else " --resume"
        print(f"stopped after {done.epoch} epochs, all saved; continue with: {again}{resume}")
        return SIGNALLED + interrupt.received
    best = "" if done.best_return is None else f", mean return {done.best_return:.1f}"
    print(
        f"{done.epoch} epochs in {done.seconds / 60:.1f} minutes; policy {run.policy}{best}, "
        f"curve {run.curve}\nevaluate it: ncp-agents evaluate {shlex.quote(str(run.policy))}"
    )
    if options.save is not None:
        run.copy_policy(options.save)
        print(f"saved to {options.save}")
    return 0
