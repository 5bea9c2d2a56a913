"""Run folders: checkpoints whole, damaged and tampered with, and one training at a time."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import ROLLOUT, SMALL_RECIPE, trained

from ncp_agents.agents import saved_policy
from ncp_agents.agents.recipe import Recipe
from ncp_agents.cli import main
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.errors import UserError
from ncp_agents.training.run_folder import Counters, RunFolder
from ncp_agents.training.train import make_model, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("runs") / "small")


def test_a_checkpoint_brings_back_network_optimiser_and_random_states(finished):
    env = AtariVecEnv("pong", 2)
    model = make_model(SMALL_RECIPE, env)
    model._setup_learn(0)
    counters = finished.load_checkpoint(model)
    assert counters.steps == model.num_timesteps == 4 * ROLLOUT
    assert counters.updates == model._n_updates == 4
    policy = saved_policy.load(finished.policy)  # of the same moment
    for name, value in saved_policy.weights(model.policy).items():
        assert torch.equal(value, saved_policy.weights(policy.network)[name])
    moments = model.policy.optimizer.state[model.policy.value_net.weight]
    assert moments["step"] == 4 * 2  # updates times minibatches
    assert moments["exp_avg_sq"].any()
    finished.load_checkpoint(model)
    drawn = torch.rand(3), np.random.rand(3)
    finished.load_checkpoint(model)
    assert torch.equal(torch.rand(3), drawn[0])
    assert (np.random.rand(3) == drawn[1]).all()
    finished.save_checkpoint(model, counters)
    env.close()


def test_what_a_killed_process_left_is_swept(tmp_path):
    run = RunFolder.create(tmp_path / "run", SMALL_RECIPE)
    names = ("checkpoint.safetensors", "progress.csv")
    left = [run.path / f".{name}.abc.unfinished" for name in names]
    for path in left:
        path.mkdir()
    with run.lock():
        assert [path.exists() for path in left] == [False, False]


@pytest.mark.parametrize("damage", ["truncated", "foreign", "other network"])
def test_a_damaged_checkpoint_is_named(finished, tmp_path, damage):
    env = AtariVecEnv("pong", 2)
    model = make_model(SMALL_RECIPE, env)
    run = RunFolder.create(tmp_path / "run", SMALL_RECIPE)
    content = finished.checkpoint.read_bytes()
    if damage == "truncated":
        run.checkpoint.write_bytes(content[: len(content) // 2])
    elif damage == "foreign":
        run.checkpoint.write_bytes((finished.policy / "weights.safetensors").read_bytes())
    else:
        bigger = make_model(Recipe(), AtariVecEnv("pong", 16))
        bigger._setup_learn(0)
        run.save_checkpoint(bigger, Counters())
    model._setup_learn(0)
    with pytest.raises(UserError, match=r"checkpoint\.safetensors"):
        run.load_checkpoint(model)
    env.close()


def with_metadata(path, **changes):
    tensors, metadata = saved_policy.load_tensors(path)
    saved_policy.save_tensors(path, tensors, metadata | changes)


def with_tensors(path, change):
    tensors, metadata = saved_policy.load_tensors(path)
    change(tensors)
    saved_policy.save_tensors(path, tensors, metadata)


MOMENT = "optimizer.exp_avg.value_net.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: with_metadata(p, counters='{"steps": "x"}'), "updates and games are"),
        (lambda p: with_metadata(p, counters='{"steps": 64.0}'), "updates and games are"),
        (lambda p: with_metadata(p, counters='{"seconds": NaN}'), "nan is no finite number"),
        (lambda p: with_metadata(p, recent_games='[{"r": 1}]'), "KeyError"),
        (lambda p: with_metadata(p, **{"random.numpy": '["MT19937", "x"]'}), "not a checkpoint"),
        (lambda p: with_metadata(p, **{"random.python": "[3, [1, 2], null]"}), "not a checkpoint"),
        (
            lambda p: with_tensors(p, lambda t: t.update({"random.torch": t[MOMENT].clone()})),
            "not a",
        ),
        (lambda p: with_tensors(p, lambda t: t.update({MOMENT: torch.zeros(3)})), "is damaged"),
        (lambda p: with_tensors(p, lambda t: t.update({MOMENT: t[MOMENT] / 0})), "is damaged"),
        (
            lambda p: with_tensors(p, lambda t: t.pop(MOMENT)),
            "lacks exp_avg of value_net",
        ),
    ],
)
def test_a_checkpoint_that_was_tampered_with_is_refused(finished, tmp_path, damage, message):
    run = shutil.copytree(finished.path, tmp_path / "run")
    damage(run / "checkpoint.safetensors")
    before = (run / "recipe.toml").read_text()
    longer = replace(SMALL_RECIPE, steps=6 * ROLLOUT)
    with pytest.raises(UserError, match=message):
        train(RunFolder(run, longer), resume=True, progress=False)
    assert (run / "recipe.toml").read_text() == before


def test_two_trainings_do_not_share_a_run(finished, capsys):
    with finished.lock():
        assert main(["train", "--run", str(finished.path), "--resume"]) == 2
    assert "somebody else is at work in" in capsys.readouterr().err
