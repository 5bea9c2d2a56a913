"""stable-baselines3's archives: the same policy comes out, and no code runs."""

import io
import os
import zipfile
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from ncp_agents.agents import saved_policy
from ncp_agents.agents.recipe import PPO, Circuit, Environment, PolicyRecipe, Recipe
from ncp_agents.agents.sb3_zip import import_zip
from ncp_agents.agents.weights import weights
from ncp_agents.errors import UserError
from ncp_agents.training.train import make_env, make_model

RECIPE = Recipe(
    environment=Environment(num_envs=2),
    policy=PolicyRecipe(features=8),
    circuit=Circuit(units=12, motor_neurons=4),
    ppo=PPO(n_steps=16, sequence_length=8, batch_size=16),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("zip") / "model.zip"
    with closing(make_env(RECIPE)) as env:
        model = make_model(RECIPE, env)
        model.save(path)
    return path, model


def test_the_policy_plays_as_the_model(archive, tmp_path):
    path, model = archive
    policy = import_zip(path, RECIPE)
    frames = np.random.default_rng(0).integers(0, 256, (3, 1, 84, 84), np.uint8)
    starts = np.ones(3, bool)
    actions, state = policy.predict(frames, episode_start=starts, deterministic=True)
    theirs, their_state = model.predict(frames, None, starts, deterministic=True)
    np.testing.assert_array_equal(actions, theirs)
    np.testing.assert_allclose(state[0], their_state[0], rtol=0, atol=1e-6)

    saved_policy.save(tmp_path / "mine", RECIPE, policy.network)
    again = weights(saved_policy.load(tmp_path / "mine").network)
    for name, tensor in weights(model.policy).items():
        assert torch.equal(again[name], tensor), name


def test_pickled_code_is_not_run(archive, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    evil = saved({"weight": Evil()})
    with pytest.raises(UserError, match=r"evil\.zip"):
        import_zip(zipped(tmp_path / "evil.zip", evil), RECIPE)
    assert not (tmp_path / "ran").exists()
    torch.load(io.BytesIO(evil), weights_only=False)  # would have run the code
    assert (tmp_path / "ran").exists()


def zipped(path, data):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("policy.pth", data)
    return path


def saved(content) -> bytes:
    data = io.BytesIO()
    torch.save(content, data)
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [saved([torch.zeros(2)]), saved({"weight": 3}), saved({"weight": torch.zeros(999)})[:-500]],
)
def test_other_contents_are_refused(tmp_path, data):
    with pytest.raises(UserError, match=r"other\.zip"):
        import_zip(zipped(tmp_path / "other.zip", data), RECIPE)


def test_other_files_and_networks_are_refused(archive, tmp_path):
    path, _ = archive
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:1000])
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    for name in ("cut.zip", "none.zip", "empty.zip"):
        with pytest.raises(UserError, match=name):
            import_zip(tmp_path / name, RECIPE)
    larger = replace(RECIPE, circuit=Circuit(units=16, motor_neurons=4))
    with pytest.raises(UserError, match=r"model\.zip does not fit"):
        import_zip(path, larger)
