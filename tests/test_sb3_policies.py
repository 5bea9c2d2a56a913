"""Policies in RecurrentPPO and SequencePPO: they learn, save, remember, read what they should."""

from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium import spaces
from random_env import BOTH, PICTURE, ROW, random_envs
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from ncp_agents.sb3 import CnnNcpPolicy, MlpNcpPolicy, MultiInputNcpPolicy, SequencePPO
from ncp_agents.sb3.encoders import DeepCompactCNN
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected

POLICIES = {MlpNcpPolicy: ROW, CnnNcpPolicy: PICTURE, MultiInputNcpPolicy: BOTH}
ACTIONS = [
    spaces.Discrete(4),
    spaces.Box(-1.0, 1.0, (2,), np.float32),
    spaces.MultiDiscrete([2, 3]),
]
# Each policy and each kind of action, but not all pairs.
KINDS = [
    (MlpNcpPolicy, ACTIONS[1]),
    (MlpNcpPolicy, ACTIONS[2]),
    (CnnNcpPolicy, ACTIONS[0]),
    (MultiInputNcpPolicy, ACTIONS[0]),
]
STEPS = 16


def model(policy, algorithm=SequencePPO, actions=None, end=0.2, **kwargs):
    observations = POLICIES[policy] if isinstance(policy, type) else kwargs.pop("observations")
    envs = random_envs(observations, actions, end=end)
    arguments = {"n_steps": STEPS, "batch_size": 3 * STEPS, "n_epochs": 1, "seed": 0}
    return algorithm(policy, envs, device="cpu", **arguments | kwargs)


def network(policy=MlpNcpPolicy, observations=None, actions=None, seed=0, **kwargs):
    torch.manual_seed(seed)
    observations = POLICIES[policy] if observations is None else observations
    return policy(observations, actions or spaces.Discrete(3), lambda _: 1e-3, **kwargs)


def observation(policy, count=3):
    space = POLICIES[policy]
    space.seed(1)
    samples = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
    return np.stack(samples)


@pytest.mark.parametrize(("policy", "actions"), KINDS)
def test_policy_in_plain_recurrent_ppo(policy, actions, tmp_path):
    """Learns, predicts with a state, saves, loads and is evaluated, in code that is not ours."""
    learner = model(policy, RecurrentPPO, actions, ent_coef=0.01).learn(2 * 3 * STEPS)
    learner.save(tmp_path / "model")
    learner.policy.save(tmp_path / "policy")
    copies = [
        learner,
        RecurrentPPO.load(tmp_path / "model", device="cpu"),
        policy.load(tmp_path / "policy", device="cpu"),
    ]

    obs, starts, states = observation(policy), np.ones(3, bool), [None] * 3
    seen = []
    for _ in range(3):
        outcomes = [
            copy.predict(obs, state, starts, deterministic=True)
            for copy, state in zip(copies, states, strict=True)
        ]
        actions_of, states = zip(*outcomes, strict=True)
        for action, state in zip(actions_of, states, strict=True):
            np.testing.assert_array_equal(action, actions_of[0])
            np.testing.assert_array_equal(state, states[0])
        seen.append(states[0][0])
        starts = np.array([False, True, False])
    # The same input moves a remembered state on, and a restarted one to where it began.
    assert not np.allclose(seen[1][:, 0], seen[0][:, 0])
    np.testing.assert_allclose(seen[1][:, 1], seen[0][:, 1], atol=1e-6)

    returns, _ = evaluate_policy(copies[1], learner.get_env(), n_eval_episodes=3)
    assert np.isfinite(returns)


@pytest.mark.parametrize("policy", POLICIES)
def test_policy_by_name_in_sequence_ppo(policy, tmp_path):
    learner = model(policy.__name__, observations=POLICIES[policy]).learn(2 * 3 * STEPS)
    assert type(learner.policy) is policy
    learner.save(tmp_path / "model")
    copy = SequencePPO.load(tmp_path / "model", env=learner.get_env(), device="cpu")
    obs = observation(policy)
    np.testing.assert_array_equal(
        copy.predict(obs, deterministic=True)[1], learner.predict(obs, deterministic=True)[1]
    )
    copy.learn(3 * STEPS)


@pytest.mark.parametrize(
    "options",
    [
        {"critic": "circuit+encoder"},
        {"critic": "circuit"},
        {"critic": "encoder"},
        {"net_arch": {"pi": [5], "vf": [6, 7]}},
        {"critic": "encoder", "share_features_extractor": False},
        {"share_features_extractor": False},
        {"features_extractor_class": DeepCompactCNN},
        {"wiring": 8},
        {"wiring": {"kind": "Random", "units": 12, "output_dim": 4, "sparsity_level": 0.3}},
        {"circuit_kwargs": {"mixed_memory": True, "mode": "pure"}},
        {"circuit_kwargs": {"init": "balanced", "mask_time_gates": True}},
    ],
    ids=str,
)
@pytest.mark.parametrize("actions", ACTIONS[:2], ids=lambda space: type(space).__name__)
def test_one_large_step_moves_every_parameter(options, actions):
    learner = model(
        CnnNcpPolicy, actions=actions, learning_rate=0.1, ent_coef=0.01, policy_kwargs=options
    )
    before = {name: p.clone() for name, p in learner.policy.named_parameters()}
    learner.learn(3 * STEPS)
    after = dict(learner.policy.named_parameters())
    assert not [name for name, p in before.items() if torch.equal(p, after[name])]


class History(BaseCallback):
    """Keeps what every rollout stored, before training reorders it."""

    def _on_training_start(self):
        self.rollouts = []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        buffer = self.locals["rollout_buffer"]
        names = ("observations", "actions", "values", "log_probs", "episode_starts")
        self.rollouts.append({name: getattr(buffer, name).copy() for name in names})


@pytest.mark.parametrize("mixed_memory", [False, True])
@pytest.mark.parametrize("algorithm", [RecurrentPPO, SequencePPO])
def test_state_is_handed_across_rollouts(algorithm, mixed_memory):
    """Three rollouts equal their episodes, each run alone and whole from a zero state."""
    learner = model(
        MlpNcpPolicy,
        algorithm,
        end=0.05,
        learning_rate=0.0,
        policy_kwargs={"circuit_kwargs": {"mixed_memory": mixed_memory}},
    )
    history = History()
    learner.learn(3 * 3 * STEPS, callback=history)
    assert len(history.rollouts) == 3
    whole = {
        name: torch.from_numpy(np.concatenate([rollout[name] for rollout in history.rollouts]))
        for name in history.rollouts[0]
    }

    starts = whole["episode_starts"]
    inside = starts[[i for i in range(len(starts)) if i % STEPS]]
    assert inside.any()  # episodes start within rollouts,
    assert (starts[STEPS] == 0).any()  # and continue across their ends
    zeros = torch.zeros(1, 1, learner.policy.circuit.state_size)
    for env in range(3):
        cuts = [*starts[:, env].nonzero().flatten().tolist(), len(starts)]
        assert cuts[0] == 0
        for first, end in pairwise(cuts):
            episode = {name: part[first:end, env] for name, part in whole.items()}
            values, log_probs, _ = learner.policy.evaluate_actions(
                episode["observations"],
                episode["actions"].flatten(),
                RNNStates((zeros, zeros), (zeros, zeros)),
                torch.zeros(end - first),
            )
            for new, name in ((values.flatten(), "values"), (log_probs, "log_probs")):
                torch.testing.assert_close(new, episode[name], rtol=1e-4, atol=1e-5)


def batches(learner):
    """What one epoch of training evaluates: inputs of evaluate_actions, and what was stored."""
    if isinstance(learner, SequencePPO):
        for batch in learner._minibatches():
            stored = batch["old_values"], batch["old_log_prob"], torch.ones_like(batch["returns"])
            yield (
                batch["observations"],
                batch["actions"],
                batch["states"],
                batch["episode_starts"],
                stored,
            )
    else:
        for batch in learner.rollout_buffer.get(learner.batch_size):
            actions = batch.actions
            if isinstance(learner.action_space, spaces.Discrete):
                actions = actions.long().flatten()
            stored = batch.old_values, batch.old_log_prob, batch.mask
            yield batch.observations, actions, batch.lstm_states, batch.episode_starts, stored


@pytest.mark.parametrize(("policy", "actions"), KINDS)
@pytest.mark.parametrize("algorithm", [RecurrentPPO, SequencePPO])
def test_training_sees_the_values_and_log_probs_of_the_rollout(algorithm, policy, actions):
    learner = model(policy, algorithm, actions, learning_rate=0.0, batch_size=STEPS)
    learner.learn(2 * 3 * STEPS)
    resets = samples = 0
    for obs, taken, states, starts, (values, log_probs, mask) in batches(learner):
        new_values, new_log_probs, entropy = learner.policy.evaluate_actions(
            obs, taken, states, starts
        )
        real = mask > 0.5
        torch.testing.assert_close(new_values.flatten()[real], values[real], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(new_log_probs[real], log_probs[real], rtol=1e-4, atol=1e-5)
        assert entropy.shape == new_log_probs.shape
        resets += int((starts[real] > 0.5).sum())
        samples += int(real.sum())
    assert samples == 3 * STEPS
    assert resets > 3


def watch_neurons(policy, monkeypatch):
    """Every tensor of neurons (B, T, N) that the policy's circuit hands out from now on."""
    seen, states = [], policy.circuit.states

    def watched(*args, **kwargs):
        neurons, state = states(*args, **kwargs)
        neurons.retain_grad()
        seen.append(neurons)
        return neurons, state

    monkeypatch.setattr(policy.circuit, "states", watched)
    return seen


@pytest.mark.parametrize("critic", ["circuit+encoder", "circuit", "encoder"])
def test_who_reads_which_neurons(critic, monkeypatch):
    policy = network(critic=critic)
    seen = watch_neurons(policy, monkeypatch)
    obs = torch.randn(4, 3)
    zeros = torch.zeros(1, 4, 32)
    starts = torch.zeros(4)

    distribution, _ = policy.get_distribution(obs, (zeros, zeros), starts)
    distribution.distribution.logits[:, 0].sum().backward()
    read = (seen[-1].grad != 0).all(0)[0]
    motor = torch.zeros(32, dtype=torch.bool)
    motor[policy.circuit.output_slice] = True
    assert motor.sum() == 8
    assert torch.equal(read, motor)

    policy.predict_values(obs, (zeros, zeros), starts).sum().backward()
    gradient = seen[-1].grad
    assert gradient is None if critic == "encoder" else (gradient != 0).all()

    # Without a circuit's step between, the critic reads the features only where it says so.
    direct = network(critic=critic)
    monkeypatch.setattr(
        direct.circuit, "states", lambda x, *_, **__: (torch.zeros(*x.shape[:2], 32), zeros[0])
    )
    value = direct.predict_values(obs, (zeros, zeros), starts)
    assert (len(value.unique()) > 1) is (critic != "circuit")


@pytest.mark.parametrize("policy", [MlpNcpPolicy, CnnNcpPolicy])
def test_ortho_init_leaves_the_circuit_alone(policy):
    kwargs = {"circuit_kwargs": {"mixed_memory": True}, "net_arch": [24]}
    plain, orthogonal = (network(policy, ortho_init=on, **kwargs) for on in (False, True))
    for name, weights in plain.circuit.named_parameters():
        assert torch.equal(weights, orthogonal.circuit.get_parameter(name)), name

    def is_orthogonal(weights):
        rows = weights.flatten(1)
        gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
        return torch.allclose(gram, gram[0, 0] * torch.eye(len(gram)), atol=1e-4)

    touched = [m for m in orthogonal.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(touched) == (4 if policy is MlpNcpPolicy else 7)
    assert all(is_orthogonal(module.weight) for module in touched)
    assert not any(is_orthogonal(cell.ff1.weight) for cell in orthogonal.circuit.rnn_cell.cells)


def test_wiring_as_object_config_or_number():
    wiring = AutoNCP(20, 5, seed=3)
    config = {"kind": "AutoNCP", "units": 20, "output_size": 5, "seed": 3}
    from_object, from_config = network(wiring=wiring), network(wiring=config)
    assert not wiring.is_built()
    assert config == {"kind": "AutoNCP", "units": 20, "output_size": 5, "seed": 3}
    np.testing.assert_array_equal(
        from_object.circuit.wiring.adjacency_matrix, from_config.circuit.wiring.adjacency_matrix
    )
    for policy in (from_object, from_config):
        assert (policy.circuit.state_size, policy.circuit.output_size) == (20, 5)

    dense = network(wiring=20)
    assert dense.circuit.wiring is None
    assert (dense.circuit.state_size, dense.circuit.output_size) == (20, 20)
    assert not dense.circuit.rnn_cell.backbone

    layered = network(wiring=NCP(4, 3, 2, 2, 2, 1, 2))
    assert layered.circuit.rnn_cell.layer_sizes == [4, 3, 2]
    assert network(wiring=FullyConnected(9, 2)).circuit.output_size == 2
    assert network().circuit.state_size == 32
    assert network(CnnNcpPolicy).circuit.state_size == 64


def test_the_memory_cell_has_a_state_of_its_own():
    for mixed_memory in (False, True):
        policy = network(circuit_kwargs={"mixed_memory": mixed_memory})
        _, (h, c) = policy.predict(observation(MlpNcpPolicy))
        assert h.shape == c.shape == (1, 3, 32)
        assert h.any()
        assert c.any() == mixed_memory


def test_actor_and_critic_may_have_an_encoder_each():
    policy = network(CnnNcpPolicy, share_features_extractor=False)
    assert policy.vf_features_extractor is not policy.pi_features_extractor
    obs = torch.randint(0, 256, (2, *PICTURE.shape), dtype=torch.uint8)
    zeros, starts = torch.zeros(1, 2, 64), torch.zeros(2)

    def actor_and_critic():
        distribution, _ = policy.get_distribution(obs, (zeros, zeros), starts)
        return distribution.distribution.logits, policy.predict_values(obs, (zeros, zeros), starts)

    with torch.no_grad():
        logits, values = actor_and_critic()
        for parameter in policy.vf_features_extractor.parameters():
            parameter.add_(0.1)
        new_logits, new_values = actor_and_critic()
    assert torch.equal(logits, new_logits)
    assert not torch.isclose(values, new_values).any()


def test_state_dependent_exploration():
    learner = model(MlpNcpPolicy, actions=ACTIONS[1], use_sde=True, sde_sample_freq=4)
    learner.learn(2 * 3 * STEPS)
    assert np.isfinite(learner.logger.name_to_value["train/loss"])


@pytest.mark.parametrize("name", ["MlpNcpPolicy", "CnnNcpPolicy", "MultiInputNcpPolicy"])
def test_rl_zoo3_finds_a_policy_by_its_dotted_name(name):
    """Its YAML files say `policy: "ncp_agents.sb3.CnnNcpPolicy"`."""
    module, _, found = f"ncp_agents.sb3.{name}".rpartition(".")
    assert issubclass(getattr(import_module(module), found), RecurrentActorCriticPolicy)
