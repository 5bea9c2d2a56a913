"""DAgger: whose actions are played, whose are learnt, and what a round leaves behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.agents.recipe import Circuit, Cloning, Environment, Policy, Recipe
from ncp_agents.cli import main
from ncp_agents.datasets.atari_cloning import SHIPPED
from ncp_agents.datasets.demonstrations import Demonstrations
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import rollout
from ncp_agents.imitation import dagger as dagger_module
from ncp_agents.imitation.cloning import clone
from ncp_agents.imitation.dagger import dagger, relabelled
from ncp_agents.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

PONG = SHIPPED / "pong"
RECIPE = Recipe(
    policy=Policy(features=8),
    circuit=Circuit(units=8, motor_neurons=2, wiring="FullyConnected"),
    cloning=Cloning(
        epochs=1, sequences=64, sequence_length=64, eval_every=0, dagger_games=2, dagger_epochs=1
    ),
)


@pytest.fixture(scope="module")
def teacher():
    return saved_policy.load(zoo.find("pong-cfc"))


class Still:
    """Never does anything."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(len(observation), np.int64), None


def test_the_student_plays_and_the_teacher_labels(teacher):
    """A game that the student loses while the teacher says what it would do: exactly what the
    teacher answers to the same pictures in one run through the whole game."""
    env = AtariVecEnv("pong", 1, protocol("v4").evaluation(), seed=3)
    steps = []
    for step in relabelled(rollout(Still(), env), teacher):
        steps.append(step)
        if step.dones[0]:
            break
    env.close()
    assert steps[-1].infos[0]["episode"]["r"] == -21.0  # the student played, and stood still
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
    clone(run, [Demonstrations(PONG)], progress=False)
    return run


def test_rounds_go_on_from_one_another_and_are_not_repeated(cloned, teacher):
    dagger(cloned, [Demonstrations(PONG)], teacher, 1, progress=False)
    first = cloned.path / "dagger" / "round-1"
    demos = Demonstrations(first / "demos")
    assert len(demos.entries) == 2
    assert demos.provenance.player == {**demos.provenance.player, "teacher": "pong-cfc"}
    before = (first / "policy" / "weights.safetensors").read_bytes()
    assert (cloned.policy / "weights.safetensors").read_bytes() == before
    assert (
        saved_policy.load(cloned.policy).recipe == cloned.recipe
    )  # not the round's, which goes on from one

    dagger(cloned, [Demonstrations(PONG)], teacher, 2, progress=False)
    assert (first / "policy" / "weights.safetensors").read_bytes() == before
    second = RunFolder.open(cloned.path / "dagger" / "round-2")
    assert second.recipe.start == str(first / "policy")
    after = (second.policy / "weights.safetensors").read_bytes()
    assert (cloned.policy / "weights.safetensors").read_bytes() == after != before


def test_a_stop_while_games_are_played_keeps_those_that_are_over(teacher, tmp_path):
    run = RunFolder.create(tmp_path / "run", RECIPE)
    clone(run, [Demonstrations(PONG)], progress=False)
    path = run.path / "dagger" / "round-1" / "demos"

    def stopped() -> bool:
        return (path / "episode_000000.npz").exists()

    dagger(run, [Demonstrations(PONG)], teacher, 1, progress=False, stopped=stopped)
    kept = len(Demonstrations(path).entries)
    assert kept >= 1
    assert not (run.path / "dagger" / "round-1" / "checkpoint.safetensors").exists()
    done = dagger(run, [Demonstrations(PONG)], teacher, 1, progress=False)
    assert done.epoch == 1
    assert len(Demonstrations(path).entries) == 2


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (replace(RECIPE, environment=Environment(game="breakout")), "plays with game=pong"),
        (replace(RECIPE, environment=Environment(frame_stack=4)), "plays with frame_stack=1"),
    ],
)
def test_a_teacher_of_something_else_is_refused(recipe, message, teacher, tmp_path):
    run = RunFolder.create(tmp_path / "run", recipe)
    with pytest.raises(UserError, match=message):
        dagger(run, [], teacher, 1)


def test_dagger_needs_a_teacher(capsys):
    assert main(["clone", "pong-cfc", "--demos", str(PONG), "--dagger", "3"]) == 2
    assert "who teaches in --dagger?" in capsys.readouterr().err


def test_a_teacher_needs_dagger(capsys):
    assert main(["clone", "pong-cfc", "--demos", str(PONG), "--teacher", "pong-cfc"]) == 2
    assert "add --dagger 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("returns", "best"),
    [((5.0, 3.0), 1), ((3.0, 5.0), 2), ((5.0, 5.0), 2), ((None, None), 2), ((5.0, None), 1)],
)
def test_the_best_round_is_kept(returns, best, teacher, tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run", RECIPE)
    clone(run, [Demonstrations(PONG)], progress=False)
    told = iter(returns)

    def evaluated(*args, **kwargs):
        return replace(clone(*args, **kwargs), best_return=next(told))

    monkeypatch.setattr(dagger_module, "clone", evaluated)
    done = dagger(run, [Demonstrations(PONG)], teacher, 2, progress=False)
    weights = {
        number: (run.path / f"dagger/round-{number}/policy/weights.safetensors").read_bytes()
        for number in (1, 2)
    }
    assert weights[1] != weights[2]
    assert (run.policy / "weights.safetensors").read_bytes() == weights[best]
    assert done.best_return == returns[best - 1]


def test_another_teacher_does_not_go_on_with_a_round(cloned, teacher):
    dagger(cloned, [Demonstrations(PONG)], teacher, 1, progress=False)
    other = replace(teacher, recipe=replace(teacher.recipe, name="other"))
    with pytest.raises(UserError, match="games of teacher 'pong-cfc', not 'other'"):
        dagger(cloned, [Demonstrations(PONG)], other, 1, progress=False)
    namesake = replace(teacher, weights_sha256="another")
    with pytest.raises(UserError, match="games of teacher_sha256"):
        dagger(cloned, [Demonstrations(PONG)], namesake, 1, progress=False)
