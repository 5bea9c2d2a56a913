"""DAgger: the student's episodes with the teacher's actions, and what each round leaves."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.agents.recipe import Circuit, Cloning, Environment, PolicyRecipe, Recipe
from ncp_agents.cli import main
from ncp_agents.datasets.atari_cloning import SHIPPED
from ncp_agents.datasets.demonstrations import Demonstrations
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import rollout
from ncp_agents.imitation import dagger as dagger_module
from ncp_agents.imitation.cloning import clone
from ncp_agents.imitation.cloning_checkpoint import CloningProgress
from ncp_agents.imitation.dagger import dagger, relabelled
from ncp_agents.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

PONG = SHIPPED / "pong"
RECIPE = Recipe(
    policy=PolicyRecipe(features=8),
    circuit=Circuit(units=8, motor_neurons=2, wiring="FullyConnected"),
    cloning=Cloning(
        epochs=1, sequences=64, sequence_length=64, eval_every=0, dagger_episodes=2, dagger_epochs=1
    ),
)


@pytest.fixture(scope="module")
def teacher():
    return saved_policy.load(zoo.find("pong-cfc"))


class NoOp:
    """A policy without actions."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(len(observation), np.int64), None


def test_the_student_plays_and_the_teacher_labels(teacher):
    """The labels are the teacher's greedy actions for the whole episode as one sequence."""
    env = AtariVecEnv("pong", 1, protocol("v4").evaluation(), seed=3)
    steps = []
    for step in relabelled(rollout(NoOp(), env), teacher):
        steps.append(step)
        if "episode" in step.infos[0]:
            break
    env.close()
    assert steps[-1].infos[0]["episode"]["r"] == -21.0  # the student's
    obs = torch.from_numpy(np.concatenate([step.observations for step in steps]))
    starts = torch.zeros(len(steps))
    starts[0] = 1.0
    state = (torch.zeros(1, 1, 64), torch.zeros(1, 1, 64))
    with torch.no_grad():
        distribution, _ = teacher.network.get_distribution(obs, state, starts)
    whole = distribution.distribution.logits.argmax(-1).numpy()
    labels = np.array([step.actions[0] for step in steps])
    assert (labels == whole).mean() > 0.999  # but for ties in the last digit
    assert len(set(labels.tolist())) > 1


@pytest.fixture(scope="module")
def cloned(tmp_path_factory) -> RunFolder:
    run = RunFolder.create(tmp_path_factory.mktemp("dagger") / "run", RECIPE)
    clone(run, [Demonstrations(PONG)])
    return run


def weights_of(run: RunFolder) -> bytes:
    return (run.policy / "weights.safetensors").read_bytes()


def test_rounds_continue_from_one_another_and_are_not_repeated(cloned, teacher):
    dagger(cloned, [Demonstrations(PONG)], teacher, 1)
    first = RunFolder.open(cloned.path / "dagger" / "round-1")
    demos = Demonstrations(first.path / "demos")
    assert len(demos.entries) == 2
    assert demos.provenance.player["teacher"] == "pong-cfc"
    before = weights_of(first)
    assert weights_of(cloned) == before
    assert saved_policy.load(cloned.policy).recipe == cloned.recipe  # not the round's

    dagger(cloned, [Demonstrations(PONG)], teacher, 2)
    assert weights_of(first) == before
    second = RunFolder.open(cloned.path / "dagger" / "round-2")
    assert second.recipe.start == str(first.policy)
    assert weights_of(cloned) == weights_of(second) != before

    for other in (
        replace(teacher, recipe=replace(teacher.recipe, name="other")),
        replace(teacher, weights_sha256="another"),
    ):
        with pytest.raises(UserError, match="teacher"):
            dagger(cloned, [Demonstrations(PONG)], other, 1)


def test_a_stop_while_recording_keeps_whole_episodes(cloned, teacher, tmp_path):
    run = RunFolder.open(shutil.copytree(cloned.path, tmp_path / "run"))
    shutil.rmtree(run.path / "dagger", ignore_errors=True)
    path = run.path / "dagger" / "round-1" / "demos"

    def should_stop() -> bool:
        return (path / "episode_000000.npz").exists()

    options = {"rounds": 1}
    dagger(run, [Demonstrations(PONG)], teacher, **options, should_stop=should_stop)
    assert len(Demonstrations(path).entries) >= 1
    assert not (run.path / "dagger" / "round-1" / "checkpoint.safetensors").exists()
    assert dagger(run, [Demonstrations(PONG)], teacher, **options).epoch == 1
    assert len(Demonstrations(path).entries) == 2


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (replace(RECIPE, environment=Environment(game="breakout")), "game=pong"),
        (replace(RECIPE, environment=Environment(frame_stack=4)), "frame_stack=1"),
    ],
)
def test_a_teacher_of_something_else_is_refused(recipe, message, teacher, tmp_path):
    run = RunFolder.create(tmp_path / "run", recipe)
    with pytest.raises(UserError, match=message):
        dagger(run, [], teacher, 1)


@pytest.mark.parametrize(
    ("options", "fact"), [(["--dagger", "3"], "--teacher"), (["--teacher", "pong-cfc"], "--dagger")]
)
def test_dagger_and_its_teacher_go_together(options, fact, capsys):
    assert main(["clone", "pong-cfc", "--demos", str(PONG), *options]) == 2
    assert fact in capsys.readouterr().err


@pytest.mark.parametrize(
    ("returns", "best"),
    [((5.0, 3.0), 1), ((3.0, 5.0), 2), ((5.0, 5.0), 2), ((None, None), 2), ((5.0, None), 1)],
)
def test_the_best_round_is_kept(returns, best, cloned, teacher, tmp_path, monkeypatch):
    run = RunFolder.open(shutil.copytree(cloned.path, tmp_path / "run"))
    shutil.rmtree(run.path / "dagger", ignore_errors=True)
    following = iter(returns)

    def fake(this: RunFolder, *_, **__) -> CloningProgress:
        if this.path == run.path:
            return CloningProgress()
        saved_policy.save(this.policy, this.recipe, saved_policy.build(this.recipe))
        return CloningProgress(best_return=next(following))

    monkeypatch.setattr(dagger_module, "clone", fake)
    monkeypatch.setattr(dagger_module, "_record_round", lambda *_: None)
    done = dagger(run, [], teacher, 2)
    one, two = (weights_of(RunFolder.open(run.path / f"dagger/round-{i}")) for i in (1, 2))
    assert one != two
    assert weights_of(run) == (one, two)[best - 1]
    assert done.best_return == returns[best - 1]
