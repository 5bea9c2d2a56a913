"""`ncp-agents train`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import tyro

from ncp_agents.agents.recipe import Cloning, Recipe
from ncp_agents.cli.parsing import SIGNALLED, named_first, named_recipe, parse, refuse_unused
from ncp_agents.cli.show import policies
from ncp_agents.errors import UserError


@dataclass(frozen=True)
class Train:
    """Train a policy, from its recipe, into a run folder.

    Name a policy (`ncp-agents train --list` shows them) or a recipe file. Every field of the recipe
    is an option below, with the recipe's own value as default:

        ncp-agents train pong-cfc --seed 2 --ppo.learning-rate 5e-4

    Ctrl-C saves a checkpoint and ends; --resume goes on from it, and needs no more than --run.
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    run: Path | None = None  # folder of the run; default runs/<name>[-continued]-seed<seed>
    resume: bool = False  # go on from the run folder's checkpoint; a longer --steps may be given
    save: Path | None = None  # also put the trained policy here, such as policies/my-policy
    list: bool = False  # show the policies that have a recipe, and end
    threads: int = 0  # of torch while it learns; 0 takes one a core


def train(arguments: Sequence[str]) -> int:
    first, options = named_first(arguments)
    base = Recipe()
    if first is not None:
        base = named_recipe(first)
    elif not {"-h", "--help", "--list", "--resume"} & set(options):
        raise UserError(
            "which policy? name it first: ncp-agents train pong-cfc --seed 2; or a recipe file; "
            "--list shows the policies"
        )
    choice = parse(Train, options, "train POLICY", default=Train(base))
    if choice.list:
        return policies([])
    of_cloning = (f"cloning.{field.name}" for field in fields(Cloning))
    refuse_unused(choice.recipe, base, "train", *of_cloning)
    if choice.recipe.start:
        refuse_unused(choice.recipe, base, "train --from", "ppo.ent_coef", "ppo.ent_until")
    else:
        of_a_start = ("ppo.critic_warmup", "ppo.fine_tuning")
        refuse_unused(choice.recipe, base, "train without --from", *of_a_start)

    from ncp_agents.agents.saved_policy import check_destination
    from ncp_agents.rendering.learning_curve import draw_curve
    from ncp_agents.torch.threads import use_threads
    from ncp_agents.training.run_folder import RunFolder, default_run_folder
    from ncp_agents.training.train import train as run_training

    use_threads(choice.threads)
    if first is None and choice.run is None:
        raise UserError("which run? name its folder, --run FOLDER, or its policy, such as pong-cfc")
    path = choice.run or default_run_folder(choice.recipe)
    if choice.resume:
        # The run's own recipe is the default of every option now.
        stored = RunFolder.open(path).recipe
        if first is not None and stored.name not in (base.name, choice.recipe.name):
            raise UserError(
                f"{path} is a run of {stored.name!r}, not of {base.name!r}; go on with it: "
                f"ncp-agents train --run {shlex.quote(str(path))} --resume"
            )
        if first is not None and first.endswith(".toml"):
            if replace(choice.recipe, steps=stored.steps) != stored:
                raise UserError(
                    f"{path} has other settings than {first} and these options; go on with its "
                    f"own: ncp-agents train --run {shlex.quote(str(path))} --resume"
                )
            stored = replace(stored, steps=choice.recipe.steps)
        recipe = parse(Train, options, "train POLICY", default=Train(stored)).recipe
        if replace(stored, steps=recipe.steps) != recipe:
            raise UserError(f"{path} has other settings than these; --resume takes only --steps")
    else:
        recipe = choice.recipe
    if choice.save is not None:
        check_destination(choice.save, recipe)
    run = RunFolder(path, recipe) if choice.resume else RunFolder.create(path, recipe)
    result = run_training(
        run,
        resume=choice.resume,
        on_progress=lambda run: draw_curve(run.progress, run.curve, run.recipe),
    )
    done = result.progress
    if result.stopped_by is not None and done.steps < recipe.steps:
        print(
            f"stopped at {done.steps:,} of {recipe.steps:,} steps, all saved; go on with: "
            f"ncp-agents train --run {shlex.quote(str(path))} --resume"
        )
        return SIGNALLED + result.stopped_by
    print(
        f"{done.steps:,} steps in {done.seconds / 60:.1f} minutes; policy {run.policy}, "
        f"curve {run.curve}\nscore it: ncp-agents evaluate {run.policy}"
    )
    if choice.save is not None:
        run.copy_policy(choice.save)
        print(f"saved to {choice.save}")
    return 0 if result.stopped_by is None else SIGNALLED + result.stopped_by
