"""DAgger: the student plays, the teacher says what it would have done, and the student learns it.

A clone of demos has seen only what its teacher met. Where it errs it meets something else, and
knows nothing about it. So it plays itself, and the demos grow by what it visits: Ross et al. 2011,
"A reduction of imitation learning and structured prediction to no-regret online learning",
arXiv:1011.0686.

Each round is a run of its own, in the run folder of the cloning that it follows:

    runs/pong-cfc-clone-seed1/dagger/
      clone/     the policy as it was cloned from the demos alone
      round-1/   what a cloning leaves, started from the policy of the round before
        demos/   the student's games, with the teacher's actions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import RECIPE, SavedPolicy, files, load, save
from ncp_agents.datasets.demonstrations import DATASET, Demonstrations
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import Policy, Step
from ncp_agents.files import copy_files
from ncp_agents.imitation.cloning import Counters, best_return_of, clone
from ncp_agents.imitation.recording import open_or_create, provenance, record_with_bar
from ncp_agents.training.run_folder import RunFolder


def relabelled(steps: Iterator[Step], teacher: Policy) -> Iterator[Step]:
    """The same steps, with the actions that a teacher who looks on finds best."""
    state = None
    for step in steps:
        actions, state = teacher.predict(step.observations, state, step.resets, True)
        yield step._replace(actions=actions)


def dagger(
    run: RunFolder,
    demos: Sequence[Demonstrations],
    teacher: SavedPolicy,
    rounds: int,
    *,
    progress: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> Counters:
    """Rounds of play and learning after the cloning in `run`, until `stopped` says so → where the
    last one stands. Rounds that are done are not done again. At the end the run's policy is the
    one with the best return, which is told, of the clone and all rounds; the last where none was
    evaluated.

    Raises:
        UserError: as `check_teacher` and `clone`; rounds below 1; a round begun with another
            teacher.
    """
    if rounds < 1:
        raise UserError(f"dagger is {rounds}, expected rounds >= 1; usual is 3")
    check_teacher(teacher, run.recipe)
    clones = run.path / "dagger" / "clone"
    if not all(path.exists() for path in files(clones)):
        copy_files(files(run.policy), clones)
    done, student, seen = Counters(), clones, list(demos)
    best, best_return = clones, best_return_of(run)
    for number in range(1, rounds + 1):
        path = run.path / "dagger" / f"round-{number}"
        resume = (path / RECIPE).is_file()
        this = RunFolder.open(path) if resume else RunFolder.create(path, _recipe(run, student))
        seen.append(_visited(this, student, teacher, progress, stopped))
        if stopped():
            return done
        done = clone(this, seen, resume=resume, progress=progress, stopped=stopped)
        if stopped():
            return done
        student = this.policy
        if _no_worse(done.best_return, best_return):
            best, best_return = student, done.best_return
    save(run.policy, run.recipe, load(best).network)  # a round's own recipe starts from another
    return replace(done, best_return=best_return)


def _no_worse(now: float | None, before: float | None) -> bool:
    """Whether a policy takes the place of an earlier one; None where it was not evaluated."""
    return before is None or (now is not None and now >= before)


def check_teacher(teacher: SavedPolicy, recipe: Recipe) -> None:
    """Refuse a teacher who cannot look on.

    Raises:
        UserError: another game or number of frames.
    """
    theirs, ours = teacher.recipe.environment, recipe.environment
    for field in ("game", "frame_stack"):
        if getattr(theirs, field) != getattr(ours, field):
            raise UserError(
                f"teacher {teacher.name} plays with {field}={getattr(theirs, field)}, but the "
                f"recipe has {getattr(ours, field)}"
            )


def _recipe(run: RunFolder, student: Path) -> Recipe:
    cloning = run.recipe.cloning
    return replace(
        run.recipe, start=str(student), cloning=replace(cloning, epochs=cloning.dagger_epochs)
    )


def _visited(
    this: RunFolder,
    policy: Path,
    teacher: SavedPolicy,
    progress: bool,
    stopped: Callable[[], bool],
) -> Demonstrations:
    """This round's demos, played by the policy of the round before as far as they are missing."""
    recipe, student = this.recipe, load(policy)
    told = {"teacher": teacher.name, "teacher_sha256": teacher.weights_sha256}
    told = {name: value for name, value in told.items() if value is not None}
    wanted = provenance(student, recipe.environment.protocol, **told)
    path = this.path / "demos"
    demos = open_or_create(path, wanted, resume=(path / DATASET).is_file())
    record_with_bar(
        student,
        demos,
        recipe.cloning.dagger_games,
        seed=recipe.seed,
        progress=progress,
        watch=lambda steps: relabelled(takewhile(lambda _: not stopped(), steps), teacher),
    )
    return demos
