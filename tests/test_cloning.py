"""Cloning end to end: real episodes, killed and resumed."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ncp_agents.agents import saved_policy
from ncp_agents.agents.recipe import Circuit, Cloning, Environment, PolicyRecipe, Recipe, Schedule
from ncp_agents.agents.weights import load_tensors
from ncp_agents.cli import main
from ncp_agents.datasets.atari_cloning import SHIPPED
from ncp_agents.datasets.demonstrations import Demonstrations
from ncp_agents.datasets.sequences import EpisodeSubset
from ncp_agents.errors import NonFiniteError, UserError
from ncp_agents.evaluation.evaluate import evaluate
from ncp_agents.imitation.cloning import EVALUATION_SEED, clone
from ncp_agents.imitation.cloning_checkpoint import CloningProgress
from ncp_agents.imitation.cloning_csv import read_epochs, write_epochs
from ncp_agents.imitation.learner import class_weights
from ncp_agents.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

PONG = SHIPPED / "pong"
RECIPE = Recipe(
    policy=PolicyRecipe(features=8),
    circuit=Circuit(units=8, motor_neurons=2, wiring="FullyConnected"),
    cloning=Cloning(epochs=2, sequences=64, sequence_length=64, eval_every=0),
)


def cloned(path: Path, recipe: Recipe = RECIPE, **options) -> tuple[RunFolder, CloningProgress]:
    run = RunFolder.create(path, recipe)
    return run, clone(run, [Demonstrations(PONG)], **options)


def progress_of(run: RunFolder) -> dict[str, float]:
    return json.loads(load_tensors(run.checkpoint)[1]["cloning"])["progress"]


def changed(**options) -> Recipe:
    return replace(RECIPE, cloning=replace(RECIPE.cloning, **options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    return cloned(tmp_path_factory.mktemp("clone") / "run")[0]


def test_a_cloning_leaves_rows_and_a_policy(finished):
    first, second = read_epochs(finished.cloning)
    assert (first.epoch, second.epoch) == (1, 2)
    assert second.train_loss < first.train_loss
    assert saved_policy.load(finished.policy).recipe == RECIPE


def test_a_resumed_cloning_is_the_same(finished, tmp_path):
    calls = []
    # Stopped after the first epoch, and killed before the checkpoint of the second.
    run, progress = cloned(
        tmp_path / "run", should_stop=lambda: bool(calls), on_progress=calls.append
    )
    assert progress.epoch == 1
    write_epochs(run.cloning, read_epochs(finished.cloning))
    clone(run, [Demonstrations(PONG)], resume=True)
    for ours, theirs in zip(read_epochs(run.cloning), read_epochs(finished.cloning), strict=True):
        assert replace(ours, seconds=0) == replace(theirs, seconds=0)
    one, other = (saved_policy.load(r.policy).network for r in (run, finished))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_resume_refuses_other_demos(finished, tmp_path):
    shutil.copytree(PONG, tmp_path / "fewer")
    fewer = Demonstrations(tmp_path / "fewer")
    fewer.drop(fewer.entries[0].file)
    with pytest.raises(UserError, match="other demos"):
        clone(finished, [fewer], resume=True)


def test_it_ends_where_the_validation_loss_no_longer_decreases(tmp_path):
    recipe = changed(epochs=9, patience=1, learning_rate=1e-30)
    assert cloned(tmp_path / "run", recipe)[1].epoch == 2


def test_non_finite_weights_end_it_and_are_not_saved(tmp_path):
    recipe = changed(epochs=3, learning_rate=1e38, max_grad_norm=1e9)
    with pytest.raises(NonFiniteError, match=r"epoch 1;.*--cloning\.learning-rate"):
        cloned(tmp_path / "run", recipe)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_policy_with_the_best_return_is_kept(tmp_path):
    recipe = replace(changed(eval_every=1), schedule=Schedule(eval_episodes=1))
    run, progress = cloned(tmp_path / "run", recipe)
    returns = [row.eval_return for row in read_epochs(run.cloning)]
    assert progress.best_return == progress_of(run)["best_return"] == max(returns)
    again = evaluate(saved_policy.load(run.policy), episodes=1, seed=EVALUATION_SEED)
    assert again.mean == progress.best_return


def test_class_weights_give_each_action_the_same_total_weight(tmp_path):
    demos = Demonstrations(PONG)
    indices = demos.split("train", 0.1)
    weights = class_weights([EpisodeSubset(demos, indices)], actions=6)
    actions = np.concatenate([demos.read(index).actions for index in indices])
    counts = torch.from_numpy(np.bincount(actions, minlength=6))
    torch.testing.assert_close(weights * counts, torch.full((6,), len(actions) / 6))
    cloned(tmp_path / "run", changed(epochs=1, class_weights=True))


def test_kill_9_leaves_a_run_that_resumes(tmp_path):
    script = str(Path(__file__).parent.parent / "scripts" / "clone.py")
    options = ["pong-cfc", "--demos", str(PONG), "--run", str(tmp_path / "run"), "--threads", "1"]
    options += ["--policy.features", "8", "--circuit.units", "12", "--circuit.motor-neurons", "2"]
    options += ["--cloning.eval-every", "0", "--cloning.sequences", "64"]
    process = subprocess.Popen([sys.executable, script, *options], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = RunFolder.open(tmp_path / "run")
    epochs = progress_of(run)["epoch"] + 1
    recipe = replace(run.recipe, cloning=replace(run.recipe.cloning, epochs=epochs))
    run = RunFolder(run.path, recipe)
    assert clone(run, [Demonstrations(PONG)], resume=True).epoch == epochs
    assert [row.epoch for row in read_epochs(run.cloning)] == [*range(1, epochs + 1)]


@pytest.mark.parametrize(
    ("environment", "fact"),
    [
        (Environment(game="breakout"), "breakout"),
        (Environment(frame_stack=4), "frame_stack=1"),
        (Environment(protocol="v5"), r"sticky_actions=0\.0"),
    ],
)
def test_demos_of_another_kind_are_refused(tmp_path, environment, fact):
    with pytest.raises(UserError, match=fact):
        cloned(tmp_path / "run", replace(RECIPE, environment=environment))


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ([], "which policy?"),
        (["pong-cfc"], "--demos"),
        (["pong-cfc", "--demos", "nowhere"], "nowhere"),
        (["pong-cfc", "--demos", str(PONG), "--resume"], "not a run folder"),
    ],
)
def test_mistakes_are_one_line(options, fact, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["clone", *options]) == 2
    error = capsys.readouterr().err
    assert fact in error
    assert error.count("\n") == 1


def test_the_command_draws_the_curve_and_resume_refuses_other_settings(finished, tmp_path, capsys):
    run = shutil.copytree(finished.path, tmp_path / "run")
    options = ["pong-cfc", "--demos", str(PONG), "--run", str(run), "--resume"]
    assert main(["clone", *options]) == 0
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert main(["clone", *options, "--cloning.epochs", "9"]) == 2
    assert "other settings" in capsys.readouterr().err
