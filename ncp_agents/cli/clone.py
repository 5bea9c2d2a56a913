"""`ncp-agents clone`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ncp_agents.agents.recipe import PPO, Recipe
from ncp_agents.cli.parsing import SIGNALLED, named_first, named_recipe, parse, refuse_unused
from ncp_agents.errors import UserError

if TYPE_CHECKING:
    from ncp_agents.training.run_folder import RunFolder


@dataclass(frozen=True)
class Clone:
    """Clone a policy from demos, into a run folder.

    Name a policy, whose recipe tells the network, or a recipe file:

        ncp-agents clone pong-cfc --demos demos/pong
        ncp-agents train pong-cfc --from runs/pong-cfc-clone-seed1/policy

    With --dagger the clone then plays itself, and learns what a saved policy, the teacher, would
    have done in its place:

        ncp-agents clone pong-cfc --demos demos/pong --dagger 3 --teacher pong-cfc

    Ctrl-C ends after the epoch; --resume goes on.
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    demos: tuple[Path, ...] = ()  # folders of demos, as `ncp-agents record` writes them
    run: Path | None = None  # folder of the run; default runs/<name>-clone-seed<seed>
    resume: bool = False  # go on from the run folder's checkpoint
    dagger: int = 0  # rounds of DAgger after the demos are learnt
    teacher: str | None = None  # the policy that says what to do in them; a folder, or a name
    save: Path | None = None  # also put the cloned policy here, such as policies/my-policy
    threads: int = 0  # of torch while it learns; 0 takes one a core


# Fields of a recipe that cloning does not read: PPO's, and without DAgger its own.
OF_PPO = [
    *("steps", "environment.num_envs"),
    *("schedule.eval_every", "schedule.checkpoint_every", "schedule.window"),
    *(f"ppo.{field.name}" for field in fields(PPO) if field.name not in ("gamma", "vf_coef")),
]
OF_DAGGER = ("cloning.dagger_games", "cloning.dagger_epochs")


def draw(run: RunFolder) -> None:
    """Draw the curve of a cloning's run."""
    from ncp_agents.imitation.cloning_csv import read_epochs
    from ncp_agents.rendering.cloning_curve import draw_cloning_curve

    rows = [asdict(row) for row in read_epochs(run.cloning)]
    if rows:
        draw_cloning_curve(rows, run.curve, run.recipe.name)


def clone(arguments: Sequence[str]) -> int:
    first, options = named_first(arguments)
    if first is None and not {"-h", "--help"} & set(options):
        raise UserError(
            "which network? name a policy first: ncp-agents clone pong-cfc --demos FOLDER; or a "
            "recipe file"
        )
    base = named_recipe(first) if first is not None else Recipe()
    choice = parse(Clone, options, "clone POLICY", default=Clone(base))
    refuse_unused(choice.recipe, base, "clone", *OF_PPO)
    if not choice.dagger:
        refuse_unused(choice.recipe, base, "clone without --dagger", *OF_DAGGER)
    if not choice.demos:
        raise UserError("which demos? --demos FOLDER; record some: ncp-agents record pong-cfc")

    from ncp_agents.agents.saved_policy import RECIPE, check_destination, load
    from ncp_agents.agents.zoo import find
    from ncp_agents.datasets.demonstrations import Demonstrations
    from ncp_agents.imitation.cloning import check_demonstrations
    from ncp_agents.imitation.cloning import clone as run_cloning
    from ncp_agents.imitation.dagger import check_teacher, dagger
    from ncp_agents.torch.threads import use_threads
    from ncp_agents.training.interrupts import InterruptHandler
    from ncp_agents.training.run_folder import RunFolder, default_run_folder

    if choice.dagger < 0:
        raise UserError(f"dagger is {choice.dagger}, expected rounds >= 0; usual is 3")
    if choice.dagger and choice.teacher is None:
        raise UserError("who teaches in --dagger? name a policy, such as --teacher pong-cfc")
    if choice.teacher is not None and not choice.dagger:
        raise UserError("a teacher teaches in rounds of DAgger; add --dagger 3")
    teacher = load(find(choice.teacher)) if choice.teacher is not None else None
    if teacher is not None:
        check_teacher(teacher, choice.recipe)
    use_threads(choice.threads)
    if choice.save is not None:
        check_destination(choice.save, choice.recipe)
    demos = [Demonstrations(path) for path in choice.demos]
    check_demonstrations(demos, choice.recipe)
    path = choice.run or default_run_folder(choice.recipe, how="clone")
    run = RunFolder.open(path) if choice.resume else RunFolder.create(path, choice.recipe)
    if choice.resume:
        if run.recipe.name not in (base.name, choice.recipe.name):
            raise UserError(f"{path} is a run of {run.recipe.name!r}, not of {base.name!r}")
        if first is not None and first.endswith(".toml") and choice.recipe != run.recipe:
            raise UserError(
                f"{path} has other settings than {first} and these options; go on with its "
                f"own, {path / RECIPE}, or name another --run"
            )
        asked = parse(Clone, options, "clone POLICY", default=Clone(run.recipe)).recipe
        if asked != run.recipe:
            raise UserError(
                f"{path} has other settings than these; --resume takes them as they are"
            )
    with InterruptHandler() as stop:
        hooks = {"should_stop": stop.should_stop, "on_progress": draw}
        done = run_cloning(run, demos, resume=choice.resume, **hooks)
        if teacher is not None and choice.dagger and not stop.should_stop():
            last = dagger(run, demos, teacher, choice.dagger, **hooks)
            done = last if last.epoch else done  # stopped before a round had learnt
    if stop.received is not None:
        again = shlex.join(["ncp-agents", "clone", *arguments])
        resume = "" if choice.resume else " --resume"
        print(f"stopped after {done.epoch} epochs, all saved; go on with: {again}{resume}")
        return SIGNALLED + stop.received
    best = "" if done.best_return is None else f", mean return {done.best_return:.1f}"
    print(
        f"{done.epoch} epochs in {done.seconds / 60:.1f} minutes; policy {run.policy}{best}, "
        f"curve {run.curve}\nscore it: ncp-agents evaluate {run.policy}"
    )
    if choice.save is not None:
        run.copy_policy(choice.save)
        print(f"saved to {choice.save}")
    return 0
