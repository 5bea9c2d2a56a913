"""SequencePPO: its minibatches, its agreement with sb3-contrib's RecurrentPPO, and memory."""

import numpy as np
import pytest
import torch
from random_env import BOTH, PICTURE, ROW, random_envs
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from ncp_agents.envs.memory import RecallEnv
from ncp_agents.sb3 import CnnNcpPolicy, MlpNcpPolicy, MultiInputNcpPolicy, SequencePPO

ENVS, STEPS = 4, 12


def learner(
    observations=ROW, policy=MlpNcpPolicy, algorithm=SequencePPO, end=0.15, actions=None, **kwargs
):
    envs = random_envs(observations, actions, ENVS, end)
    arguments = {"n_steps": STEPS, "batch_size": ENVS * STEPS, "n_epochs": 1, "seed": 0}
    return algorithm(policy, envs, device="cpu", **arguments | kwargs)


def collect(model, rollouts=1):
    """Rollouts without training."""
    _, callback = model._setup_learn(10_000)
    for _ in range(rollouts):
        model.collect_rollouts(model.env, callback, model.rollout_buffer, STEPS)
    return model


def number_samples(model):
    """Every sample's observation says which one it is: 1000 * environment + step."""
    buffer = model.rollout_buffer
    numbers = 1000.0 * np.arange(ENVS) + np.arange(STEPS)[:, None]
    buffer.observations[:] = numbers[..., None]
    return buffer


@pytest.mark.parametrize("sequence_length", [None, 12, 6, 4, 1])
@pytest.mark.parametrize("sequences", [1, 2, 4])
def test_an_epoch_covers_every_sample_once_in_whole_sequences(sequence_length, sequences):
    length = sequence_length or STEPS
    model = learner(batch_size=sequences * length, sequence_length=sequence_length)
    collect(model, rollouts=2)
    buffer = number_samples(model)
    assert buffer.hidden_states_pi[0].all()

    orders = []
    for _ in range(2):
        batches = list(model._minibatches())
        seen = np.concatenate([batch["observations"][:, 0].numpy() for batch in batches])
        expected = [1000.0 * env + step for env in range(ENVS) for step in range(STEPS)]
        assert sorted(seen) == expected
        assert {len(batch["observations"]) for batch in batches} == {sequences * length}
        orders.append(seen)

        for batch in batches:
            numbers = batch["observations"][:, 0].numpy().reshape(sequences, length)
            assert (np.diff(numbers, axis=1) == 1).all()
            envs, steps = (numbers // 1000).astype(int), (numbers % 1000).astype(int)
            assert (steps[:, 0] % length == 0).all()
            for name, stored in (
                ("old_values", buffer.values),
                ("old_log_prob", buffer.log_probs),
                ("advantages", buffer.advantages),
                ("returns", buffer.returns),
                ("episode_starts", buffer.episode_starts),
                ("actions", buffer.actions[..., 0]),
            ):
                np.testing.assert_array_equal(
                    batch[name].numpy().reshape(sequences, length), stored[steps, envs]
                )
            np.testing.assert_array_equal(
                batch["states"].pi[0][0].numpy(),
                buffer.hidden_states_pi[steps[:, 0], 0, envs[:, 0]],
            )
    if len(orders[0]) > sequences * length:
        assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"sequence_length": 5}, "sequence_length is 5, expected a divisor of n_steps = 12"),
        ({"sequence_length": 24}, "sequence_length is 24, expected a divisor of n_steps = 12"),
        ({"batch_size": 30}, "batch_size is 30, expected 12 .* times a divisor of 4 "),
        ({"batch_size": 36}, "batch_size is 36, expected 12 .* times a divisor of 4 "),
        ({"batch_size": 6}, "batch_size is 6, expected 12 "),
        ({"batch_size": 96}, "batch_size is 96, expected 12 "),
        ({"batch_size": 20, "sequence_length": 4}, "expected 4 .* times a divisor of 12 "),
    ],
)
def test_sizes_that_do_not_divide_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        learner(**sizes)


def test_a_minibatch_of_one_sample_trains():
    model = learner(batch_size=1, sequence_length=1).learn(ENVS * STEPS)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


def test_no_batch_size_is_the_whole_rollout():
    assert learner(batch_size=None).batch_size == ENVS * STEPS


@pytest.mark.parametrize(
    ("observations", "policy", "options"),
    [
        (ROW, MlpNcpPolicy, {}),
        (ROW, MlpNcpPolicy, {"policy_kwargs": {"circuit_kwargs": {"mixed_memory": True}}}),
        (ROW, MlpNcpPolicy, {"clip_range_vf": 0.2, "normalize_advantage": False}),
        (ROW, MlpNcpPolicy, {"target_kl": 2e-5, "n_epochs": 3}),
        (PICTURE, CnnNcpPolicy, {}),
        (BOTH, MultiInputNcpPolicy, {}),
    ],
)
def test_one_update_equals_recurrent_ppo(observations, policy, options, monkeypatch):
    """On the same rollout, episode starts inside, both find the same new weights."""
    models = []
    for algorithm in (SequencePPO, RecurrentPPO):
        model = learner(
            observations, policy, algorithm, ent_coef=0.01, learning_rate=0.01, **options
        )
        models.append(collect(model, rollouts=2))
    ours, theirs = models
    np.testing.assert_array_equal(ours.rollout_buffer.values, theirs.rollout_buffer.values)
    np.testing.assert_array_equal(ours.rollout_buffer.returns, theirs.rollout_buffer.returns)
    assert ours.rollout_buffer.episode_starts[1:].sum() > 3
    assert (ours.rollout_buffer.episode_starts[0] == 0).any()
    before = {name: p.clone() for name, p in ours.policy.named_parameters()}

    # Their buffer cuts the data at a random place, and with it the gradient; at 0 nothing is cut.
    monkeypatch.setattr(np.random, "randint", lambda *_: 0)
    losses = []
    for model in models:
        model.train()
        values = model.logger.name_to_value
        losses.append({name: value for name, value in values.items() if name.startswith("train/")})
        if model.n_epochs > 1:
            del losses[-1]["train/approx_kl"]  # theirs is of the last epoch, ours of all
    assert losses[0] == pytest.approx(losses[1], rel=1e-3, abs=1e-5)

    # Adam's steps are about as large as the learning rate, 0.01, for every weight.
    after = dict(theirs.policy.named_parameters())
    for name, mine in ours.policy.named_parameters():
        torch.testing.assert_close(mine, after[name], rtol=0, atol=2e-4, msg=name)
        assert (mine - before[name]).abs().max() > 5e-3, name


def test_sequences_cut_the_gradient_but_not_the_values():
    """Shorter sequences start from the rollout's own states: the same losses at first."""
    losses = []
    for length in (12, 3, 1):
        model = collect(learner(sequence_length=length, learning_rate=0.0), rollouts=2)
        model.train()
        losses.append(model.logger.name_to_value["train/value_loss"])
    assert losses == pytest.approx(losses[:1] * 3, rel=1e-5)


def test_dict_observations():
    model = learner(BOTH, "MultiInputNcpPolicy", sequence_length=6, batch_size=24)
    collect(model)
    batch = next(iter(model._minibatches()))
    assert {key: tuple(part.shape) for key, part in batch["observations"].items()} == {
        "picture": (24, 1, 36, 36),
        "row": (24, 3),
    }
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(2 * ENVS * STEPS)
    assert all((a != b).any() for a, b in zip(model.policy.parameters(), before, strict=True))


def test_it_learns_to_recall_what_no_memoryless_policy_can():
    """Three steps after the cue, at the moment of the answer, all cues look alike."""
    shown = {"delay": 3, "cues": 2}

    def score(algorithm, policy):
        model = algorithm(
            policy,
            make_vec_env(RecallEnv, 32, seed=0, env_kwargs=shown),
            n_steps=8,  # two episodes
            batch_size=256,
            n_epochs=5,
            learning_rate=1e-2,
            gamma=0.9,
            seed=0,
            device="cpu",
        )
        model.learn(3072)
        env = make_vec_env(RecallEnv, 1, seed=9, env_kwargs=shown)
        return evaluate_policy(model, env, n_eval_episodes=100)[0]

    assert score(SequencePPO, "MlpNcpPolicy") == 1.0
    assert score(PPO, "MlpPolicy") < 0.75  # 0.5 is guessing, give or take 0.05 in 100 episodes


@pytest.mark.parametrize("critic", ["circuit+encoder", "encoder"])
def test_while_the_critic_warms_up_nothing_else_moves(critic):
    kwargs = {"critic": critic, "net_arch": {"pi": [4], "vf": [5]}}
    model = learner(policy_kwargs=kwargs, critic_warmup=ENVS * STEPS, learning_rate=1e-2)
    before = {name: p.clone() for name, p in model.policy.named_parameters()}
    model.learn(ENVS * STEPS)
    moved = {n for n, p in model.policy.named_parameters() if not torch.equal(p, before[n])}
    own = ("value_net.", "mlp_extractor.value_net.")
    assert moved == {name for name in before if name.startswith(own)}
    model.learn(ENVS * STEPS, reset_num_timesteps=False)  # past the warm-up
    assert all(not torch.equal(p, before[name]) for name, p in model.policy.named_parameters())
