"""Exported policies: onnxruntime takes the policy's own actions, step by step and in sequences."""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ncp_agents.agents.recipe import Circuit, PolicyRecipe, Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, build, load
from ncp_agents.agents.zoo import find
from ncp_agents.cli import main
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.games import action_meanings
from ncp_agents.envs.protocol import AtariProtocol, protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import first_episodes, rollout
from ncp_agents.export import onnx as onnx_export
from ncp_agents.export.onnx import export, state_size

SHORT = replace(protocol("v4").evaluation(), max_frames=160)  # 40 steps an episode
SCRIPT = Path(__file__).parent.parent / "scripts" / "play_onnx.py"
# One export takes 2 s; a model of sequences contains one of a step.
CIRCUITS = [
    ("step", {"wiring": "AutoNCP"}),
    ("step", {"wiring": "FullyConnected", "mixed_memory": True}),
    ("sequence", {"wiring": "dense", "mode": "pure"}),
    ("sequence", {"wiring": "AutoNCP", "cell": "ltc"}),
    ("sequence", {"wiring": "Random", "cell": "ltc", "mixed_memory": True}),
]


def small_policy(**circuit) -> SavedPolicy:
    torch.manual_seed(3)
    recipe = Recipe(
        name="small",
        policy=PolicyRecipe(features=8),
        circuit=Circuit(units=12, motor_neurons=4, **circuit),
    )
    network = build(recipe)
    with torch.no_grad():
        for (
            parameter
        ) in network.action_net.parameters():  # initially all actions are equally likely
            parameter.normal_()
    network.set_training_mode(False)
    return SavedPolicy(recipe, network)


@pytest.fixture(scope="module")
def pong(tmp_path_factory):
    """The shipped policy's file, by the command."""
    path = tmp_path_factory.mktemp("onnx") / "pong.onnx"
    assert main(["export", "pong-cfc", "--output", str(path)]) == 0
    return path


def run(path, observation, state, reset):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"observation": observation, "state": state, "reset": reset})


@pytest.mark.parametrize(("kind", "circuit"), CIRCUITS)
def test_any_circuit_gives_what_the_policy_gives(kind, circuit, tmp_path):
    policy, sequence = small_policy(**circuit), kind == "sequence"
    agreement = export(policy, tmp_path / "small.onnx", sequence, SHORT)
    assert agreement.steps == 40
    assert agreement.difference < 1e-4
    onnx.checker.check_model(tmp_path / "small.onnx", full_check=True)

    random = np.random.default_rng(0)
    neurons = policy.network.circuit.state_size
    for batch, steps in ((1, 1), (3, 5)) if sequence else ((1, 1), (3, 1)):
        lead = (batch, steps) if sequence else (batch,)
        observation = random.integers(0, 255, (*lead, 1, 84, 84), np.uint8)
        state = random.normal(size=(batch, state_size(policy))).astype(np.float32)
        reset = random.random(lead) < 0.3
        logits, values, new_state = run(tmp_path / "small.onnx", observation, state, reset)
        assert logits.shape == (*lead, 6)
        assert values.shape == lead

        parts = torch.zeros(2, 1, batch, neurons)
        for part, given in zip(parts, np.split(state, state.shape[1] // neurons, 1), strict=False):
            part[0] = torch.from_numpy(given)
        with torch.no_grad():
            distribution, expected_values, states = policy.network.distribution_and_values(
                torch.from_numpy(observation).flatten(0, len(lead) - 1),
                tuple(parts),
                torch.from_numpy(reset).flatten().float(),
            )
        expected = distribution.distribution.logits
        np.testing.assert_allclose(logits.reshape(-1, 6), expected, atol=1e-5)
        np.testing.assert_allclose(values.reshape(-1, 1), expected_values, atol=1e-5)
        expected_state = torch.cat(states, -1)[0, :, : state.shape[1]]
        np.testing.assert_allclose(new_state, expected_state, atol=1e-5)


def test_a_file_has_no_paths_but_metadata(pong):
    assert [path.name for path in pong.parent.iterdir()] == ["pong.onnx"]
    assert str(Path(__file__).parent.parent).encode() not in pong.read_bytes()
    session = onnxruntime.InferenceSession(pong, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert about["policy"] == "pong-cfc"
    assert about["game"] == "pong"
    assert json.loads(about["actions"]) == list(action_meanings("pong"))
    assert AtariProtocol(**json.loads(about["protocol"])) == protocol("v4").evaluation()
    shapes = {value.name: value.shape for value in session.get_inputs()}
    assert shapes == {"observation": ["B", 1, 84, 84], "state": ["B", 64], "reset": ["B"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pong-cfc", "breakout-cfc"])
def test_onnxruntime_alone_reproduces_the_policys_episode(name, tmp_path):
    """In Breakout the state is reset at each lost life."""
    policy, path = load(find(name)), tmp_path / "model.onnx"
    game, rules = policy.recipe.environment.game, protocol("v4", max_frames=20_000)
    export(policy, path, rules=rules.evaluation())
    with closing(AtariVecEnv(game, 1, rules.evaluation(), seed=7)) as env:
        *_, last = first_episodes(rollout(policy, env, deterministic=True), 1)
    episode = last.infos[0]["episode"]
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0]); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT), str(path), "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = f"{name} plays {game}: score {episode['r']:g} after {episode['l']} steps\n"
    assert done.stdout == expected
    assert len(SCRIPT.read_text().splitlines()) <= 33


@dataclass(frozen=True)
class OtherActions(SavedPolicy):
    """Takes other actions than its network's."""

    def predict(self, *args, **kwargs):
        actions, state = super().predict(*args, **kwargs)
        return (actions + 1) % 6, state


def test_a_model_that_acts_otherwise_is_refused(tmp_path):
    path = tmp_path / "small.onnx"
    path.write_bytes(b"old")
    policy = small_policy()
    with pytest.raises(UserError, match="step 0"):
        export(OtherActions(policy.recipe, policy.network), path, rules=SHORT)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ncp-agents\[onnx\]"):
        export(small_policy(), tmp_path / "small.onnx")
