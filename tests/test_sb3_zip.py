"""stable-baselines3's archives: the same policy comes out, and no code runs."""

import io
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from ncp_agents.agents import saved_policy
from ncp_agents.agents.recipe import PPO, Circuit, Environment, Policy, Recipe
from ncp_agents.agents.sb3_zip import import_zip
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.errors import UserError
from ncp_agents.training.train import make_model

RECIPE = Recipe(
    environment=Environment(num_envs=2),
    policy=Policy(features=8),
    circuit=Circuit(units=12, motor_neurons=4),
    ppo=PPO(n_steps=16, sequence_length=8, batch_size=16),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("zip") / "model.zip"
    env = AtariVecEnv("pong", 2)
    model = make_model(RECIPE, env)
    model.save(path)
    env.close()
    return path, model


def test_the_policy_plays_as_the_model(archive, tmp_path):
    path, model = archive
    policy = import_zip(path, RECIPE)
    frames = np.random.default_rng(0).integers(0, 256, (3, 1, 84, 84), np.uint8)
    starts = np.ones(3, bool)
    actions, state = policy.act(frames, episode_start=starts, deterministic=True)
    theirs, their_state = model.predict(frames, None, starts, deterministic=True)
    np.testing.assert_array_equal(actions, theirs)
    np.testing.assert_allclose(state[0], their_state[0], rtol=0, atol=1e-6)

    saved_policy.save(tmp_path / "mine", RECIPE, policy.network)
    again = saved_policy.weights(saved_policy.load(tmp_path / "mine").network)
    for name, tensor in saved_policy.weights(model.policy).items():
        assert torch.equal(again[name], tensor), name


def test_pickled_code_is_not_run(archive, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    tensors = io.BytesIO()
    torch.save({"weight": Evil()}, tensors)
    evil = tmp_path / "evil.zip"
    with zipfile.ZipFile(evil, "w") as file:
        file.writestr("data", pickle.dumps(Evil()))
        file.writestr("policy.pth", tensors.getvalue())
    with pytest.raises(UserError, match=r"evil.zip holds more than tensors in policy.pth"):
        import_zip(evil, RECIPE)
    assert not (tmp_path / "ran").exists()
    with zipfile.ZipFile(evil) as file:
        pickle.loads(file.read("data"))  # the code would have run
    assert (tmp_path / "ran").exists()


def test_other_files_and_networks_are_refused(archive, tmp_path):
    path, _ = archive
    cut = tmp_path / "cut.zip"
    cut.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut.zip is not a model of stable-baselines3, or was cut"):
        import_zip(cut, RECIPE)
    with pytest.raises(UserError, match=r"there is no file .*none.zip"):
        import_zip(tmp_path / "none.zip", RECIPE)
    empty = tmp_path / "empty.zip"
    zipfile.ZipFile(empty, "w").close()
    with pytest.raises(UserError, match=r"no item named 'policy.pth'"):
        import_zip(empty, RECIPE)
    larger = replace(RECIPE, circuit=Circuit(units=16, motor_neurons=4))
    with pytest.raises(UserError, match=r"model.zip does not fit the recipe"):
        import_zip(path, larger)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds more than tensors in policy.pth: a list, not a state dict"),
        ({"weight": 3}, "a dict, not a state dict"),
        (None, "is not a model of stable-baselines3, or was cut short"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, message):
    data = io.BytesIO()
    torch.save(content or {"weight": torch.zeros(999)}, data)
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("policy.pth", data.getvalue()[: None if content else -500])
    with pytest.raises(UserError, match=message):
        import_zip(path, RECIPE)
