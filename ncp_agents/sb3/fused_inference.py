"""One step of a frozen policy, from bytes to logits, in one call of C.

Called one by one, the kernels of a step take less time than what Python does around them.

Axes: B environments, I features, N neurons, A actions.
"""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING

import torch
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from ncp_agents.sb3.encoders import CompactCNN
from ncp_agents.torch import LTC, CfC, kernels
from ncp_agents.torch.frozen import is_frozen, prepared
from ncp_agents.torch.kernels import convolutions
from ncp_agents.torch.kernels.library import bytes_, floats
from ncp_agents.torch.kernels.pipeline import KernelPipeline, linear
from ncp_agents.torch.scan import step_call

if TYPE_CHECKING:
    from ncp_agents.sb3.policies import MlpNcpPolicy


def fused_inference(
    policy: MlpNcpPolicy, obs: PyTorchObs, states: tuple[Tensor, ...]
) -> FusedInference | None:
    """Return the fused step of a policy for such inputs, made once while it is frozen.

    Args:
        policy: frozen or not.
        obs: (B, C, H, W) bytes.
        states: a pair of (1, B, N).

    Returns:
        None where the policy is not frozen, or needs what the kernels lack.
    """
    if not (is_frozen(policy) and isinstance(obs, Tensor)):
        return None
    obs_kind, state_kind = ((t.shape, t.dtype, t.device.type) for t in (obs, states[0]))
    expected = (1, len(obs), policy.circuit.state_size), torch.float32, "cpu"
    if obs_kind[1:] != (torch.uint8, "cpu") or state_kind != expected:
        return None
    settings = policy.temperature, policy.training, kernels.are_on()
    key = obs_kind, *settings, torch.is_autocast_enabled("cpu")
    return prepared(
        policy, key, lambda: FusedInference(policy, obs) if _fits(policy, obs) else None
    )


def _fits(policy: MlpNcpPolicy, obs: Tensor) -> bool:
    encoder, circuit = policy.features_extractor, policy.circuit
    one_row = torch.empty(1, circuit.input_size), torch.empty(1, circuit.state_size)
    return (
        isinstance(encoder, CompactCNN)
        and type(encoder).forward is CompactCNN.forward
        and obs.shape[1:] == policy.observation_space.shape
        and policy.share_features_extractor
        and policy.normalize_images
        and convolutions.fits(obs, encoder.cnn)
        and isinstance(circuit, CfC | LTC)
        and not circuit.step_by_step
        and policy.memory
        and isinstance(policy.action_dist, CategoricalDistribution)
        and not len(policy.mlp_extractor.policy_net)
        and step_call(circuit.rnn_cell, *one_row) is not None
    )


class FusedInference(local):
    """The step of B environments. Each thread has arrays of its own."""

    def __init__(self, policy: MlpNcpPolicy, frames: Tensor) -> None:
        encoder, circuit = policy.features_extractor, policy.circuit
        assert isinstance(encoder, CompactCNN)
        assert isinstance(circuit, CfC | LTC)
        layer = encoder.linear[0]
        assert isinstance(layer, nn.Linear)
        batch, neurons = len(frames), circuit.state_size
        bias = policy.logits(torch.zeros(1, neurons))[0]
        weight = (policy.logits(torch.eye(neurons)) - bias).T  # what follows the circuit is affine

        maps = torch.empty(batch, layer.in_features)
        features = torch.empty(batch, layer.out_features)
        self.states, self.logits = torch.empty(batch, neurons), torch.empty(batch, len(bias))
        step = step_call(circuit.rnn_cell, features, self.states)
        assert step is not None
        self._encode, self._step = convolutions.step_call(frames, encoder.cnn, maps), step
        project = linear(layer.weight, layer.bias, maps, features, relu=True)
        decide = linear(weight, bias, self.states, self.logits)
        self._pipeline = KernelPipeline([self._encode, project, step, decide], batch)

    def __call__(self, frames: Tensor, h: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
        """frames (B, C, H, W) uint8, h (B, N), resets (B,) bool → logits (B, A), new h (B, N)."""
        frames, h, resets = frames.contiguous(), h.contiguous(), resets.contiguous()
        self._encode.call.bytes = bytes_(frames)
        self._step.call.start, self._step.call.resets = floats(h), bytes_(resets)
        self._pipeline.run()
        return self.logits.clone(), self.states.clone()
