"""`ncp-agents clone`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.zoo import find
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
    policy, rest = split_policy(arguments)
    base = Recipe() if policy is None else find_recipe(policy)
    options = parse(Clone, rest, "clone POLICY", default=Clone(base))
    if policy is None:
        raise UserError("which network? name a policy or a recipe file: ncp-agents clone pong-cfc")
    if not options.demos:
        raise UserError("which demos? --demos FOLDER; record some: ncp-agents record pong-cfc")
    if bool(options.dagger) != bool(options.teacher):
        raise UserError("DAgger takes both --dagger and --teacher: --dagger 3 --teacher pong-cfc")
    teacher_folder = None if options.teacher is None else find(options.teacher)

    from ncp_agents.agents.saved_policy import check_destination, load
    from ncp_agents.cli.curves import draw_cloning
    from ncp_agents.datasets.demonstrations import Demonstrations
    from ncp_agents.imitation.cloning import check_demonstrations, clone
    from ncp_agents.imitation.dagger import check_teacher, dagger
    from ncp_agents.torch.threads import use_threads
    from ncp_agents.training.interrupts import InterruptHandler
    from ncp_agents.training.run_folder import RunFolder, default_run_folder

    use_threads(options.threads)
    recipe = options.recipe
    path = options.run or default_run_folder(recipe, how="clone")
    if options.resume:
        recipe = resumed_recipe(
            path,
            RunFolder.open(path).recipe,
            policy,
            recipe,
            lambda stored: parse(Clone, rest, "clone POLICY", default=Clone(stored)).recipe,
        )
    teacher = None if teacher_folder is None else load(teacher_folder)
    if teacher is not None:
        check_teacher(teacher, recipe)
    if options.save is not None:
        check_destination(options.save, recipe)
    demos = [Demonstrations(folder) for folder in options.demos]
    check_demonstrations(demos, recipe)
    run = RunFolder(path, recipe) if options.resume else RunFolder.create(path, recipe)
    with InterruptHandler() as interrupt:

        def should_stop() -> bool:
            return interrupt.received is not None

        done = clone(
            run, demos, resume=options.resume, should_stop=should_stop, on_progress=draw_cloning
        )
        if teacher is not None and options.dagger and not should_stop():
            last = dagger(
                run,
                demos,
                teacher,
                options.dagger,
                should_stop=should_stop,
                on_progress=draw_cloning,
            )
            done = last if last.epoch else done  # interrupted before a round had trained
    if interrupt.received is not None:
        again = shlex.join(["ncp-agents", "clone", *arguments])
        resume = "" if options.resume else " --resume"
        print(f"stopped after {done.epoch} epochs, all saved; continue with: {again}{resume}")
        return SIGNALLED + interrupt.received
    best = "" if done.best_return is None else f", mean return {done.best_return:.1f}"
    print(
        f"{done.epoch} epochs in {done.seconds / 60:.1f} minutes; policy {run.policy}{best}, "
        f"curve {run.curve}\nevaluate it: ncp-agents evaluate {run.policy}"
    )
    if options.save is not None:
        run.copy_policy(options.save)
        print(f"saved to {options.save}")
    return 0
