"""`ncp-agents clone`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ncp_agents.cli.parsing import SIGNALLED, named_recipe, parse
from ncp_agents.errors import UserError
from ncp_agents.recipe import Recipe


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


def clone(arguments: Sequence[str]) -> int:
    positional = bool(arguments) and not arguments[0].startswith("-")
    if not positional and not {"-h", "--help"} & set(arguments):
        raise UserError(
            "which network? name a policy first: ncp-agents clone pong-cfc --demos FOLDER; or a "
            "recipe file"
        )
    base = named_recipe(arguments[0]) if positional else Recipe()
    options = arguments[1:] if positional else arguments
    choice = parse(Clone, options, "clone POLICY", default=Clone(base))
    if not choice.demos:
        raise UserError("which demos? --demos FOLDER; record some: ncp-agents record pong-cfc")

    from ncp_agents.cloning import check_demos
    from ncp_agents.cloning import clone as run_cloning
    from ncp_agents.dagger import check_teacher, dagger
    from ncp_agents.datasets.episodes import Demos
    from ncp_agents.run_folder import RunFolder
    from ncp_agents.saved_policy import RECIPE, find, load
    from ncp_agents.stopping import Stop
    from ncp_agents.torch.threads import use_threads
    from ncp_agents.training import check_destination, copy_policy

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
    demos = [Demos(path) for path in choice.demos]
    check_demos(demos, choice.recipe)
    path = choice.run or Path("runs") / f"{choice.recipe.name}-clone-seed{choice.recipe.seed}"
    run = RunFolder.open(path) if choice.resume else RunFolder.create(path, choice.recipe)
    if choice.resume:
        if run.recipe.name not in (base.name, choice.recipe.name):
            raise UserError(f"{path} is a run of {run.recipe.name!r}, not of {base.name!r}")
        if positional and arguments[0].endswith(".toml") and choice.recipe != run.recipe:
            raise UserError(
                f"{path} has other settings than {arguments[0]} and these options; go on with its "
                f"own, {path / RECIPE}, or name another --run"
            )
        asked = parse(Clone, options, "clone POLICY", default=Clone(run.recipe)).recipe
        if asked != run.recipe:
            raise UserError(
                f"{path} has other settings than these; --resume takes them as they are"
            )
    with Stop() as stop:
        stopped = lambda: bool(stop.received)  # noqa: E731
        done = run_cloning(run, demos, resume=choice.resume, stopped=stopped)
        if teacher is not None and choice.dagger and not stopped():
            last = dagger(run, demos, teacher, choice.dagger, stopped=stopped)
            done = last if last.epoch else done  # stopped before a round had learnt
    if stop.received is not None:
        where = shlex.quote(str(path))
        print(f"stopped after {done.epoch} epochs, all saved; go on with --run {where} --resume")
        return SIGNALLED + stop.received
    best = "" if done.best_return is None else f", mean return {done.best_return:.1f}"
    print(
        f"{done.epoch} epochs in {done.seconds / 60:.1f} minutes; policy {run.policy}{best}, "
        f"curve {run.curve}\nscore it: ncp-agents evaluate {run.policy}"
    )
    if choice.save is not None:
        copy_policy(run, choice.save)
        print(f"saved to {choice.save}")
    return 0
