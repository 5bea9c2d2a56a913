"""Saved policies: a round trip is exact, and other files are refused."""

import json
import os
import shutil
import struct
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sb3_contrib import RecurrentPPO

from ncp_agents.agents.recipe import Circuit, Environment, PolicyRecipe, Recipe
from ncp_agents.agents.saved_policy import build, check_destination, load, policy_kwargs, save
from ncp_agents.agents.weights import weights
from ncp_agents.agents.zoo import find, zoo
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError
from ncp_agents.sb3 import CnnNcpPolicy

RECIPES = [
    Recipe(),
    Recipe(
        environment=Environment("breakout", frame_stack=2),
        policy=PolicyRecipe(features=32, critic="circuit"),
        circuit=Circuit(units=20, motor_neurons=4, mixed_memory=True, mode="no_gate"),
    ),
    Recipe(circuit=Circuit(wiring="Random", units=16, motor_neurons=3, mask_time_gates=True)),
    Recipe(circuit=Circuit(wiring="FullyConnected", units=16, motor_neurons=3, init="xavier")),
    Recipe(policy=PolicyRecipe(critic="encoder"), circuit=Circuit(wiring="dense", units=16)),
]


@pytest.fixture
def folder(tmp_path) -> Path:
    save(tmp_path / "policy", RECIPES[0], build(RECIPES[0]))
    return tmp_path / "policy"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_loaded_policy_acts_like_the_saved_one(recipe, tmp_path):
    network = build(recipe)
    save(tmp_path, recipe, network)
    loaded = load(tmp_path)
    assert loaded.recipe == recipe
    rng = np.random.default_rng(0)
    shape = (3, recipe.environment.frame_stack, 84, 84)
    state = other = None
    for step in range(4):
        frames = rng.integers(0, 255, shape, np.uint8)
        starts = np.array([step == 0, step == 2, False])
        action, state = loaded.predict(frames, state, starts, deterministic=True)
        expected, other = network.predict(frames, other, starts, deterministic=True)
        assert (action == expected).all()
        assert state is not None
        assert other is not None
        np.testing.assert_array_equal(state[0], other[0])


def test_the_files_hold_no_pickle(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["recipe.toml", "weights.safetensors"]
    header = (folder / "weights.safetensors").read_bytes()
    length = struct.unpack("<Q", header[:8])[0]
    names = json.loads(header[8 : 8 + length])
    assert "circuit.rnn_cell.layer_0.ff1.weight" in names


def test_weights_name_each_parameter_once():
    network = build(Recipe())
    parameters = {id(p) for p in network.parameters()}
    named = [t for t in weights(network).values() if id(t) in parameters]
    assert len(named) == len(parameters)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        load(folder)


BIAS, MASK = "value_net.bias", "circuit.rnn_cell.layer_0.sparsity_mask"


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda t: t.pop(BIAS), BIAS),
        (lambda t: t.update(extra=torch.zeros(1)), "extra"),
        (lambda t: t.update({BIAS: torch.zeros(2)}), r"value_net.bias .*\(2,\)"),
        (lambda t: t.update({BIAS: torch.zeros(1).to(torch.float8_e4m3fn)}), "float8_e4m3fn"),
        (lambda t: t.update({BIAS: torch.tensor([float("nan")])}), "value_net.bias .*NaN"),
        (lambda t: t[MASK].fill_(1.0), "sparsity_mask .*wiring"),
    ],
)
def test_weights_of_another_network_are_refused(folder, change, fact):
    path = folder / "weights.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(UserError, match=fact):
        load(folder)


def test_a_pickle_in_the_place_of_weights_is_not_opened(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save(Bomb(), folder / "weights.safetensors")
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        load(folder)
    assert not (tmp_path / "exploded").exists()


def test_missing_files_and_folders_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        load(tmp_path / "nowhere")
    shutil.copytree(folder, tmp_path / "run" / "policy")
    shutil.copy(folder / "recipe.toml", tmp_path / "run")
    with pytest.raises(UserError, match=r"run.*run/policy"):
        load(tmp_path / "run")
    for name in ("weights.safetensors", "recipe.toml"):
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"lacks {name}"):
            load(folder)


def test_sizes_that_the_wiring_does_not_allow_are_refused():
    with pytest.raises(UserError, match="pong-cfc"):
        build(Recipe(circuit=Circuit(units=8, motor_neurons=7)))


def test_options_of_another_cell_have_no_effect():
    dense = Circuit(wiring="dense", units=16, sparsity=0.9)
    ltc = Circuit(cell="ltc", mode="pure", init="xavier", mask_time_gates=True)
    for circuit, same in (
        (dense, Circuit(wiring="dense", units=16)),
        (ltc, Circuit(cell="ltc")),
    ):
        assert policy_kwargs(Recipe(circuit=circuit)) == policy_kwargs(Recipe(circuit=same))


def test_find_by_name_and_by_path(folder):
    assert find(str(folder)) == folder
    assert find("pong-cfc") == zoo()["pong-cfc"]
    for name, fact in (("pong-cfx", "'pong-cfc'"), ("some/where", "some/where")):
        with pytest.raises(UserError, match=fact):
            find(name)


@pytest.mark.parametrize("what", ["file", "breakout"])
def test_a_destination_is_checked(what, tmp_path):
    (tmp_path / "file").touch()
    save(tmp_path / "breakout", Recipe(environment=Environment("breakout")), build(Recipe()))
    with pytest.raises(UserError, match=what):
        check_destination(tmp_path / what, Recipe())
    check_destination(tmp_path / "new", Recipe())


def test_a_full_disk_leaves_the_old_policy_whole(folder):
    """A limit on the size of files stands in for the disk."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code = f"""
import resource, signal
from pathlib import Path
from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import build, save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
network = build(Recipe())
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
save(Path({str(folder)!r}), Recipe(seed=5), network)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert "OSError" in done.stderr
    assert "weights.safetensors" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    load(folder)


def test_a_saved_policy_continues_in_recurrent_ppo():
    """sb3-contrib's own algorithm loads it: the same actions, and training works."""
    policy = load(find("pong-cfc"))
    env = AtariVecEnv("pong", 2, protocol("v4"), seed=1)
    with closing(env):
        kwargs = policy_kwargs(policy.recipe)
        model = RecurrentPPO(CnnNcpPolicy, env, n_steps=8, batch_size=8, policy_kwargs=kwargs)
        model.policy.load_state_dict(policy.network.state_dict())
        observation = env.reset()
        starts = np.ones(2, bool)
        ours = policy.predict(observation, None, starts, deterministic=True)
        theirs = model.predict(observation, None, starts, deterministic=True)
        np.testing.assert_array_equal(ours[0], theirs[0])
        before = model.policy.value_net.weight.clone()
        model.learn(16)
        assert not torch.equal(before, model.policy.value_net.weight)


def test_actions_are_sampled_by_their_probabilities():
    policy = load(find("pong-cfc"))
    policy = replace(policy, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([0.1, 0.0, 0.6, 0.3, 0.0])
    logits = expected.log().expand(100_000, 5)
    before = torch.get_rng_state()
    sampled = policy.sample_actions(logits, deterministic=False).bincount(minlength=5) / 100_000
    assert torch.equal(torch.get_rng_state(), before)  # it has random numbers of its own
    assert not sampled[[1, 4]].any()
    torch.testing.assert_close(sampled, expected, rtol=0, atol=0.006)  # four standard deviations
    assert policy.sample_actions(logits[:2], deterministic=True).tolist() == [2, 2]
