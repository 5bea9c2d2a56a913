"""A frozen policy's look in one call: equal to its layers one by one, wherever it is taken."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from gymnasium import spaces
from instruction_sets import VARIANTS, use_library

from ncp_agents.sb3 import CnnNcpPolicy
from ncp_agents.sb3.encoders import DeepCompactCNN
from ncp_agents.sb3.fused_inference import fused_inference
from ncp_agents.torch import kernels
from ncp_agents.torch.kernels.pipeline import KernelPipeline, linear

ACTIONS = 6
POLICIES = {
    "cfc": {},
    "dense cfc": {"wiring": 24},
    "cfc with a backbone": {
        "wiring": 12,
        "circuit_kwargs": {"backbone_layers": 2, "backbone_units": 20},
    },
    "cfc without a gate": {"circuit_kwargs": {"mode": "no_gate"}},
    "ltc": {"cell": "ltc", "wiring": {"kind": "AutoNCP", "units": 19, "output_size": 5}},
    "deep encoder": {
        "features_extractor_class": DeepCompactCNN,
        "features_extractor_kwargs": {"features_dim": 37},
    },
}


@pytest.fixture(params=VARIANTS, autouse=True)
def variant(request, monkeypatch):
    use_library(request.param, monkeypatch)
    torch.manual_seed(0)


def policy(**kwargs):
    space = spaces.Box(0, 255, (1, 84, 84), np.uint8)
    made = CnnNcpPolicy(space, spaces.Discrete(ACTIONS), lambda _: 0.0, **kwargs)
    for parameter in made.action_net.parameters():
        torch.nn.init.normal_(parameter)  # stable-baselines3's begin next to zero
    return made.eval()


def seen_by(policy, batch=5):
    """Frames, states and episode starts."""
    h = 0.5 * torch.randn(1, batch, policy.circuit.state_size)
    starts = torch.arange(batch) % 3 == 1
    frames = torch.randint(0, 256, (batch, *policy.observation_space.shape), dtype=torch.uint8)
    return frames, (h, torch.zeros_like(h)), starts


@pytest.mark.parametrize("name", POLICIES)
def test_logits_and_state_equal_the_layers_one_by_one(name):
    ours = policy(**POLICIES[name])
    for batch in (1, 5, 19):
        seen = seen_by(ours, batch)
        with torch.no_grad():
            with kernels.off():
                expected, (expected_h, _) = ours.action_logits(*seen)
            with ours.frozen():
                assert fused_inference(ours, *seen[:2])
                logits, (h, c) = ours.action_logits(*seen)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(h, expected_h, rtol=1e-4, atol=1e-5)
        assert not c.any()


def test_steps_go_on_from_the_state_and_leave_earlier_results_alone():
    ours = policy()
    frames, state, starts = seen_by(ours)
    with torch.no_grad(), ours.frozen():
        first, after_one = ours.action_logits(frames, state, starts)
        kept, kept_state = first.clone(), after_one[0].clone()
        second, _ = ours.action_logits(frames, after_one, torch.zeros(5, dtype=torch.bool))
    assert torch.equal(first, kept)
    assert torch.equal(after_one[0], kept_state)
    assert not torch.allclose(first, second)


def test_temperature_and_kernels_may_change_while_frozen():
    ours = policy()
    seen = seen_by(ours)
    with torch.no_grad(), ours.frozen():
        cold, _ = ours.action_logits(*seen)
        ours.temperature = 2.0
        warm, _ = ours.action_logits(*seen)
        with kernels.off():
            assert fused_inference(ours, *seen[:2]) is None
            plain, _ = ours.action_logits(*seen)
    torch.testing.assert_close(warm, cold / 2)
    torch.testing.assert_close(warm, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        {"circuit_kwargs": {"mixed_memory": True}},
        {"circuit_kwargs": {"mode": "pure"}},
        {"cell": "lstm", "wiring": 16},
        {"net_arch": [8]},
        {"memory": False},
        {"normalize_images": False},
        {"share_features_extractor": False},
    ],
    ids=str,
)
def test_other_networks_go_layer_by_layer(other):
    ours = policy(**other)
    seen = seen_by(ours)
    with torch.no_grad():
        expected, _ = ours.action_logits(*seen)
        with ours.frozen():
            assert fused_inference(ours, *seen[:2]) is None
            torch.testing.assert_close(ours.action_logits(*seen)[0], expected)


def test_only_what_is_frozen_and_needs_no_gradient_is_taken():
    ours = policy()
    frames, state, starts = seen_by(ours)
    with torch.no_grad():
        assert fused_inference(ours, frames, state) is None
    with ours.frozen():
        assert fused_inference(ours, frames, state) is None
        assert ours.action_logits(frames, state, starts)[0].requires_grad
        with torch.no_grad():
            assert fused_inference(ours, frames / 255, state) is None
            assert fused_inference(ours, frames, tuple(part.double() for part in state)) is None
            one_sequence = tuple(part[:, :1] for part in state)
            assert fused_inference(ours, frames, one_sequence) is None


def test_threads_encode_their_own_frames():
    ours = policy()
    seen = [seen_by(ours) for _ in range(4)]

    def look_often(one):
        with torch.no_grad():
            return [ours.action_logits(*one)[0] for _ in range(50)]

    with ours.frozen(), ThreadPoolExecutor(4) as threads:
        alone = [look_often(one)[0] for one in seen]
        together = [*threads.map(look_often, seen)]
    for expected, found in zip(alone, together, strict=True):
        assert all(torch.equal(logits, expected) for logits in found)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (7, 3, 16), (21, 40, 51)])
def test_a_linear_link_equals_float64(rows, inputs, outputs, relu):
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    x, out = torch.randn(rows, inputs), torch.full((rows + 1, outputs), 7.0)
    KernelPipeline([linear(weight, bias, x, out, relu)], rows).run()
    expected = torch.addmm(bias.double(), x.double(), weight.double().T)
    expected = expected.relu() if relu else expected
    torch.testing.assert_close(out[:rows].double(), expected, rtol=1e-5, atol=1e-5)
    assert (out[rows] == 7.0).all()  # nothing is written beyond
