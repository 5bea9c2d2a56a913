"""DAgger: the student plays, the teacher labels the observations, the student is trained on both.

A clone meets observations that are not in its demos, after a mistake of its own, and its errors add
up. So the student's own episodes, labelled with the teacher's actions, join the demos: Ross et al.
2011, "A reduction of imitation learning and structured prediction to no-regret online learning",
arXiv:1011.0686.

Each round is a run of its own, in the run folder of the cloning that it follows:

    runs/pong-cfc-clone-seed1/dagger/
      clone/     the policy as it was cloned from the demos alone
      round-1/   the run of a cloning that starts from the policy of the round before
        demos/   the student's episodes, with the teacher's actions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from ncp_agents.agents.recipe import RECIPE, Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, files, load, save
from ncp_agents.datasets.demonstrations import DATASET, Demonstrations
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import Policy, Step
from ncp_agents.files import copy_files
from ncp_agents.imitation.cloning import clone
from ncp_agents.imitation.cloning_checkpoint import CloningProgress
from ncp_agents.imitation.recording import open_or_create, provenance, record_with_bar
from ncp_agents.training.run_folder import RunFolder


def dagger(
    run: RunFolder,
    demos: Sequence[Demonstrations],
    teacher: SavedPolicy,
    rounds: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[RunFolder], None] = lambda _: None,
) -> CloningProgress:
    """Clone, then continue with rounds of DAgger, and return the last one's progress.

    A cloning and rounds that are done are not repeated. At the end the run's policy, and the
    returned best return, are the best of the clone and all rounds; the last round's where none was
    evaluated.

    Args:
        run: of the cloning, done or not.
        demos: to clone from.
        teacher: labels the student's observations with its greedy actions.
        rounds: in total.
        should_stop: ends the work after the current step or epoch; a later call continues.
        on_progress: called with a round's run, as by `clone`.

    Raises:
        UserError: as `check_teacher` and `clone`; rounds below 1; a round begun with another
            teacher.
    """
    if rounds < 1:
        raise UserError(f"dagger is {rounds}, expected rounds >= 1; usual is 3")
    check_teacher(teacher, run.recipe)
    settings: dict[str, Any] = {
        "should_stop": should_stop,
        "on_progress": on_progress,
    }
    done = clone(run, demos, resume=True, **settings)
    if should_stop():
        return done
    student = run.path / "dagger" / "clone"
    if not all(path.exists() for path in files(student)):
        copy_files(files(run.policy), student)
    best, best_return, known = student, done.best_return, list(demos)
    for number in range(1, rounds + 1):
        path = run.path / "dagger" / f"round-{number}"
        exists = (path / RECIPE).is_file()
        this = RunFolder.open(path) if exists else RunFolder.create(path, _recipe(run, student))
        known.append(_record_round(this, student, teacher, should_stop))
        if should_stop():
            return done
        done = clone(this, known, resume=True, **settings)
        if should_stop():
            return done
        student = this.policy
        if best_return is None or (
            done.best_return is not None and done.best_return >= best_return
        ):
            best, best_return = student, done.best_return
    save(run.policy, run.recipe, load(best).network)  # a round's own recipe starts from another
    return replace(done, best_return=best_return)


def check_teacher(teacher: SavedPolicy, recipe: Recipe) -> None:
    """Refuse a teacher that cannot label the student's observations.

    Raises:
        UserError: another game or number of frames.
    """
    theirs, ours = teacher.recipe.environment, recipe.environment
    for field in ("game", "frame_stack"):
        if getattr(theirs, field) != getattr(ours, field):
            raise UserError(
                f"teacher {teacher.name} has {field}={getattr(theirs, field)}, expected the "
                f"recipe's {getattr(ours, field)}"
            )


def relabelled(steps: Iterator[Step], teacher: Policy) -> Iterator[Step]:
    """Yield the same steps, with the teacher's greedy actions."""
    state = None
    for step in steps:
        actions, state = teacher.predict(step.observations, state, step.resets, True)
        yield step._replace(actions=actions)


def _recipe(run: RunFolder, student: Path) -> Recipe:
    cloning = replace(run.recipe.cloning, epochs=run.recipe.cloning.dagger_epochs)
    return replace(run.recipe, start=str(student), cloning=cloning)


def _record_round(
    this: RunFolder,
    policy: Path,
    teacher: SavedPolicy,
    should_stop: Callable[[], bool],
) -> Demonstrations:
    """Return a round's demos, after recording those that are missing."""
    recipe, student = this.recipe, load(policy)
    labels = {"teacher": teacher.name, "teacher_sha256": teacher.weights_sha256}
    labels = {name: value for name, value in labels.items() if value is not None}
    wanted = provenance(student, recipe.environment.protocol, **labels)
    path = this.path / "demos"
    demos = open_or_create(path, wanted, resume=(path / DATASET).is_file())
    record_with_bar(
        student,
        demos,
        recipe.cloning.dagger_episodes,
        seed=recipe.seed,
        wrap_steps=lambda steps: relabelled(takewhile(lambda _: not should_stop(), steps), teacher),
    )
    return demos
