"""NCPFeaturesExtractor in PPO, A2C and DQN: a stack of frames as a sequence, oldest first."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from random_env import random_envs
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack

from ncp_agents.envs import AtariVecEnv
from ncp_agents.envs.protocol import protocol
from ncp_agents.sb3 import NCPFeaturesExtractor
from ncp_agents.wirings import AutoNCP

WINDOW = spaces.Box(-1.0, 1.0, (5, 3), np.float32)  # T = 5 rows of I = 3
STACK = spaces.Box(0, 255, (4, 36, 36), np.uint8)
WIRING = {"kind": "AutoNCP", "units": 16, "output_size": 4}
SHORT = {
    PPO: {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    A2C: {"n_steps": 8},
    DQN: {"learning_starts": 8, "train_freq": 4, "batch_size": 8, "buffer_size": 100},
}


def learner(algorithm, policy, env, **extractor):
    kwargs = {
        "features_extractor_class": NCPFeaturesExtractor,
        "features_extractor_kwargs": {"wiring": WIRING, **extractor},
    }
    return algorithm(policy, env, policy_kwargs=kwargs, seed=0, device="cpu", **SHORT[algorithm])


@pytest.mark.parametrize("algorithm", SHORT)
def test_rows_in_any_algorithm(algorithm, tmp_path):
    model = learner(algorithm, "MlpPolicy", random_envs(WINDOW, count=2), read="motor")
    model.learn(64)
    model.save(tmp_path / "model")
    copy = algorithm.load(tmp_path / "model", device="cpu")
    obs = np.stack([WINDOW.sample() for _ in range(8)])
    np.testing.assert_array_equal(
        copy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0]
    )
    for name, weights in model.policy.state_dict().items():
        assert torch.equal(weights, copy.policy.state_dict()[name])
    evaluate_policy(copy, model.get_env(), n_eval_episodes=2)


@pytest.mark.parametrize("algorithm", SHORT)
def test_stacked_atari_frames_in_any_algorithm(algorithm):
    env = AtariVecEnv("pong", num_envs=2, protocol=protocol("v4", frame_stack=4), seed=0)
    model = learner(algorithm, "CnnPolicy", env)
    before = {name: weights.clone() for name, weights in model.policy.state_dict().items()}
    model.learn(48)
    after = model.policy.state_dict()
    extractor = [name for name in before if "circuit" in name or "encoder" in name]
    moved = [name for name in extractor if not torch.equal(before[name], after[name])]
    assert any("encoder" in name for name in moved)
    assert any("circuit" in name for name in moved)
    env.close()


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_one_large_step_moves_every_parameter(algorithm):
    for space, policy in ((WINDOW, "MlpPolicy"), (STACK, "CnnPolicy")):
        model = learner(algorithm, policy, random_envs(space, count=2))
        model.lr_schedule = lambda _: 0.1
        before = {name: p.clone() for name, p in model.policy.named_parameters()}
        model.learn(16)
        after = dict(model.policy.named_parameters())
        assert not [name for name, p in before.items() if torch.equal(p, after[name])]


@pytest.mark.parametrize("channels", [1, 2])
def test_stack_equals_the_circuit_run_by_hand_from_the_oldest_frame(channels):
    torch.manual_seed(0)
    extractor = NCPFeaturesExtractor(STACK, WIRING, channels=channels)
    frames = torch.rand(3, 4, 36, 36)
    state = None
    for t in range(0, 4, channels):
        features = extractor.encoder(frames[:, t : t + channels])
        _, state = extractor.circuit(features[:, None], state)
    torch.testing.assert_close(extractor(frames), state)
    motor = NCPFeaturesExtractor(STACK, WIRING, channels=channels, read="motor")
    motor.load_state_dict(extractor.state_dict())
    torch.testing.assert_close(motor(frames), state[:, extractor.circuit.output_slice])
    assert (extractor.features_dim, motor.features_dim) == (16, 4)


def test_rows_equal_the_circuit_run_by_hand():
    extractor = NCPFeaturesExtractor(WINDOW, WIRING)
    rows = torch.randn(2, 5, 3)
    _, state = extractor.circuit(rows)
    torch.testing.assert_close(extractor(rows), state)
    one_row = NCPFeaturesExtractor(spaces.Box(-1.0, 1.0, (3,)), WIRING)
    _, state = one_row.circuit(rows[:, :1])
    torch.testing.assert_close(one_row(rows[:, 0]), state)


@pytest.mark.parametrize("kind", ["VecFrameStack", "AtariVecEnv"])
def test_the_newest_frame_is_last_in_a_stack(kind):
    """What stacks frames in this field puts the newest last, which is where the circuit ends."""
    if kind == "AtariVecEnv":
        env = AtariVecEnv("pong", num_envs=1, protocol=protocol("v4", frame_stack=4), seed=0)
    else:
        single = spaces.Box(0, 255, (1, 36, 36), np.uint8)
        env = VecFrameStack(random_envs(single, count=1, end=0.0), 4, channels_order="first")
    env.reset()
    for _ in range(20):  # Pong's ball appears after a while
        before = env.step(np.array([1]))[0].copy()
    after = env.step(np.array([1]))[0].copy()
    env.close()
    np.testing.assert_array_equal(after[:, :3], before[:, 1:])
    assert not np.array_equal(after[:, 3], before[:, 3])

    shape = after.shape[1:]
    extractor = NCPFeaturesExtractor(spaces.Box(0, 255, shape, np.uint8), WIRING)
    frames = torch.rand(1, *shape)
    assert not torch.allclose(extractor(frames), extractor(frames.flip(1)), atol=1e-4)


def test_the_circuit_keeps_its_own_initialisation():
    def weights(ortho_init):
        kwargs = {
            "features_extractor_class": NCPFeaturesExtractor,
            "features_extractor_kwargs": {"wiring": WIRING},
            "ortho_init": ortho_init,
        }
        env = random_envs(STACK, count=1)
        return PPO("CnnPolicy", env, policy_kwargs=kwargs, seed=0, device="cpu").policy

    plain, orthogonal = weights(False).features_extractor, weights(True).features_extractor
    for name, parameter in plain.circuit.named_parameters():
        assert torch.equal(parameter, orthogonal.circuit.get_parameter(name)), name
    assert not torch.equal(plain.encoder.cnn[0].weight, orthogonal.encoder.cnn[0].weight)
    kernels = orthogonal.encoder.cnn[0].weight.flatten(1)
    torch.testing.assert_close(kernels @ kernels.T, 2 * torch.eye(16), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("wiring", "neurons"),
    [(AutoNCP(16, 4), 16), (WIRING, 16), ({"kind": "FullyConnected", "units": 9}, 9), (12, 12)],
)
def test_wiring_as_object_config_or_number(wiring, neurons):
    extractor = NCPFeaturesExtractor(WINDOW, wiring)
    assert extractor.features_dim == neurons
    assert extractor(torch.zeros(2, 5, 3)).shape == (2, neurons)


def test_images_without_a_range_of_pixels_are_read_as_given():
    """Images scaled before the policy (normalize_images=False) need no uint8 space."""
    scaled = spaces.Box(0.0, 1.0, (4, 36, 36), np.float32)
    for encoder in ("compact", "deep", "nature"):
        extractor = NCPFeaturesExtractor(scaled, WIRING, encoder=encoder)
        assert extractor(torch.rand(2, 4, 36, 36)).shape == (2, 16)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (spaces.Discrete(4), {}, r"Discrete\(4\), expected a Box of frames"),
        (spaces.Box(0, 1, (2, 3, 4, 5)), {}, r"expected a Box of frames \(F \* channels, H, W\)"),
        (STACK, {"channels": 3}, "has 4 channels, expected a multiple of 3"),
        (STACK, {"encoder": "natur"}, "encoder 'natur' is unknown; did you mean 'nature'"),
        (STACK, {"cell": "fcf"}, "cell 'fcf' is unknown; did you mean 'cfc'"),
        (STACK, {"read": "all"}, "read is 'all', expected 'neurons' or 'motor'"),
        (
            spaces.Box(0, 255, (4, 19, 19), np.uint8),
            {},
            r"\(1, 19, 19\), uint8\), expected an image \(C, H, W\) of at least 20 x 20",
        ),
        (spaces.Box(0, 255, (4, 35, 84), np.uint8), {"encoder": "deep"}, "at least 36 x 36"),
    ],
)
def test_wrong_spaces_and_options_are_refused_with_the_remedy(space, options, message):
    with pytest.raises(ValueError, match=message):
        NCPFeaturesExtractor(space, **options)
