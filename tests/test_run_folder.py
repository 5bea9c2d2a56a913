"""Run folders: checkpoints whole and damaged, and one training at a time."""

import json
import random
from contextlib import closing

import numpy as np
import pytest
import torch
from small_run import ROLLOUT, SMALL_RECIPE, trained

from ncp_agents.agents import saved_policy
from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.weights import load_tensors, save_tensors, weights
from ncp_agents.cli import main
from ncp_agents.errors import UserError
from ncp_agents.training.checkpoint import TrainingProgress, load_checkpoint, save_checkpoint
from ncp_agents.training.run_folder import LOCK, RunFolder
from ncp_agents.training.train import make_env, make_model, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("runs") / "small")


def test_a_checkpoint_restores_network_optimiser_and_random_states(finished, tmp_path):
    with closing(make_env(SMALL_RECIPE)) as env:
        model = make_model(SMALL_RECIPE, env)
        progress = load_checkpoint(finished.checkpoint, model, window=20)
        assert progress.steps == model.num_timesteps == 4 * ROLLOUT
        policy = saved_policy.load(finished.policy)  # of the same moment
        for name, value in weights(model.policy).items():
            assert torch.equal(value, weights(policy.network)[name])
        moments = model.policy.optimizer.state[model.policy.value_net.weight]
        assert moments["step"] == 4 * 2  # updates times minibatches
        assert moments["exp_avg_sq"].any()

        model.ep_info_buffer.append({"r": -21.0, "l": 764, "t": 1.5})
        save_checkpoint(tmp_path / "again.safetensors", model, progress)
        sampled = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
        model = make_model(SMALL_RECIPE, env)
        assert load_checkpoint(tmp_path / "again.safetensors", model, window=20) == progress
        assert sampled == (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
        assert list(model.ep_info_buffer) == [{"r": -21.0, "l": 764, "t": 1.5}]


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    run = RunFolder.create(tmp_path / "run", SMALL_RECIPE)
    names = ("checkpoint.safetensors", "progress.csv")
    left = [run.path / f".{name}.abc.unfinished" for name in names]
    for path in left:
        path.mkdir()
    with run.lock():
        assert [path.exists() for path in left] == [False, False]


def test_a_folder_whose_recipe_was_not_finished_is_taken_over(tmp_path):
    left = tmp_path / "run" / ".recipe.toml.abc.unfinished"
    left.mkdir(parents=True)
    (tmp_path / "run" / LOCK).touch()
    RunFolder.create(tmp_path / "run", SMALL_RECIPE)
    assert not left.exists()
    assert RunFolder.open(tmp_path / "run").recipe == SMALL_RECIPE


def truncated(finished, path):
    path.write_bytes(finished.checkpoint.read_bytes()[:5000])


def of_another_kind(finished, path):
    path.write_bytes((finished.policy / "weights.safetensors").read_bytes())


def of_another_network(finished, path):
    with closing(make_env(Recipe())) as env:
        save_checkpoint(path, make_model(Recipe(), env), TrainingProgress())


def with_a_negative_count(finished, path):
    tensors, metadata = load_tensors(finished.checkpoint)
    changed = metadata["training"].replace('"steps": ', '"steps": -')
    save_tensors(path, tensors, {"training": changed})


def with_an_episode_of_other_fields(finished, path):
    tensors, metadata = load_tensors(finished.checkpoint)
    changed = json.loads(metadata["training"]) | {"recent_episodes": [{"x": 1.0}]}
    save_tensors(path, tensors, {"training": json.dumps(changed)})


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        of_another_kind,
        of_another_network,
        with_a_negative_count,
        with_an_episode_of_other_fields,
    ],
)
def test_a_damaged_checkpoint_is_named(finished, tmp_path, damage):
    run = RunFolder.create(tmp_path / "run", SMALL_RECIPE)
    damage(finished, run.checkpoint)
    with pytest.raises(UserError, match=r"checkpoint\.safetensors"):
        train(run, resume=True)


def test_two_trainings_do_not_share_a_run(finished, capsys):
    with finished.lock():
        assert main(["train", "--run", str(finished.path), "--resume"]) == 2
    assert "locked by another process" in capsys.readouterr().err
