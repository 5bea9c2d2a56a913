"""Recurrent policies for sb3-contrib's RecurrentPPO, with a circuit where it has an LSTM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    create_mlp,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from ncp_agents import registry
from ncp_agents.errors import NonFiniteError
from ncp_agents.sb3.circuits import WiringLike, make_circuit
from ncp_agents.sb3.encoders import CompactCNN, check_fits
from ncp_agents.sb3.fused_inference import fused_inference
from ncp_agents.torch.frozen import frozen

CriticReads = Literal["circuit+encoder", "circuit", "encoder"]
CRITIC_READS: tuple[CriticReads, ...] = get_args(CriticReads)


class Activations(NamedTuple):
    """What one step of B environments computed; each (B, ·) float32."""

    features: Tensor
    """(B, I) of the encoder."""
    previous: Tensor
    """(B, N), the state that the neurons read: cleared, or what the memory cell made of it."""
    neurons: Tensor
    """(B, N), the new state."""
    logits: Tensor
    """(B, A)."""
    values: Tensor
    """(B,)."""


class MlpNcpPolicy(RecurrentActorCriticPolicy):
    """Actor and critic around one circuit, for observations that are vectors.

        observation → encoder → circuit → motor neurons → actor
                         └────────→ all neurons, features → critic

    Axes: B sequences (or environments), T steps, I features, N neurons, M motor neurons, A actions.

    Args:
        observation_space, action_space, lr_schedule: as of stable-baselines3's `ActorCriticPolicy`,
            like all arguments that are not listed here.
        net_arch: hidden layers after the circuit, none by default.
        wiring: a `Wiring`, its config such as {"kind": "AutoNCP", "units": 32, "output_size": 8},
            or the number of neurons of a dense circuit.
        cell: "cfc", "ltc", or "lstm" to compare with, for which wiring is the number of neurons.
        critic: what the critic reads: "circuit+encoder" (all neurons and the features: the value is
            easier to learn when it need not pass the circuit), "circuit" or "encoder".
        circuit_kwargs: further arguments of the circuit's layer, such as {"mode": "no_gate"}.
        memory: False clears the circuit's state before every step: the same network without
            recurrence, to compare with.

    The state is the pair (h, c) of shape (1, B, N) that sb3-contrib expects; c is the memory cell's
    with `circuit_kwargs={"mixed_memory": True}` and stays zero otherwise. The circuit keeps its own
    initialisation: `ortho_init` concerns the encoder and the layers after the circuit.

    Raises:
        ValueError: unknown names; an observation space that does not fit the encoder; an encoder
            of the critic's own that it does not read.
    """

    default_wiring: ClassVar[WiringLike] = {"kind": "AutoNCP", "units": 32, "output_size": 8}
    temperature: float = 1.0
    """Divides the logits of discrete actions: above 1 sampled actions are more even. 1 to train."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        *args: Any,
        wiring: WiringLike | None = None,
        cell: str = "cfc",
        critic: CriticReads = "circuit+encoder",
        circuit_kwargs: dict[str, Any] | None = None,
        memory: bool = True,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.wiring = self.default_wiring if wiring is None else wiring
        self.cell = cell
        self.critic_reads = registry.get("critic", critic, CRITIC_READS)
        self.circuit_kwargs = circuit_kwargs or {}
        self.memory = memory
        check_fits(features_extractor_class, observation_space)
        if optimizer_class is torch.optim.Adam:
            # eps as in PPO's reference implementation (openai/baselines); one fused pass over all
            # parameters takes a quarter of the time of one pass each.
            optimizer_kwargs = {"eps": 1e-5, "fused": True, **(optimizer_kwargs or {})}
        if critic == "circuit" and not kwargs.get("share_features_extractor", True):
            raise ValueError(
                "share_features_extractor=False gives the critic an encoder of its own, which "
                "critic='circuit' never reads; expected 'circuit+encoder' or 'encoder'"
            )
        # RecurrentActorCriticPolicy.__init__ would only add LSTMs to what its parent builds.
        ActorCriticPolicy.__init__(
            self,
            observation_space,
            action_space,
            lr_schedule,
            net_arch or [],
            activation_fn,
            *args,
            features_extractor_class=features_extractor_class,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            **kwargs,
        )

    def _build_mlp_extractor(self) -> None:
        """Build the circuit and what follows it, before the heads and the optimizer are made."""
        self.circuit = make_circuit(
            self.features_dim, self.wiring, self.cell, **self.circuit_kwargs
        )
        neurons = self.circuit.state_size
        critic_inputs = {
            "circuit+encoder": neurons + self.features_dim,
            "circuit": neurons,
            "encoder": self.features_dim,
        }[self.critic_reads]
        self.mlp_extractor = ActorCriticLayers(
            self.circuit.output_size, critic_inputs, self.net_arch, self.activation_fn
        )
        self.lstm_hidden_state_shape = (1, 1, neurons)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Return a context in which the weights do not change.

        Single steps without gradient, as in a rollout, then prepare them once.
        """
        encoders = [module.cnn for module in self.modules() if isinstance(module, CompactCNN)]
        with self.circuit.frozen(), frozen(self, *encoders):
            yield

    @property
    def lstm_actor(self) -> CircuitShape:
        """Return what RecurrentPPO reads to allocate states."""
        return CircuitShape(1, self.circuit.state_size, self.circuit.input_size)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return ActorCriticPolicy._get_constructor_parameters(self) | {
            "wiring": self.wiring,
            "cell": self.cell,
            "critic": self.critic_reads,
            "circuit_kwargs": self.circuit_kwargs,
            "memory": self.memory,
        }

    def extract_features(
        self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the features, as stable-baselines3 does, but of bytes for `CompactCNN`.

        To scale a minibatch of frames takes as long as the circuit.
        """
        encoder = features_extractor or self.features_extractor
        if (
            self.share_features_extractor
            and self.normalize_images
            and isinstance(encoder, CompactCNN)
            and isinstance(obs, Tensor)
            and obs.dtype == torch.uint8
        ):
            return encoder(obs)
        return super().extract_features(obs, features_extractor)

    def _encode(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Return features (B * T, I) for actor and critic, the same if they share the encoder."""
        features = self.extract_features(obs)
        return features if isinstance(features, tuple) else (features, features)

    def _run_circuit(
        self,
        features: Tensor,
        states: tuple[Tensor, ...],
        episode_starts: Tensor,
        timespans: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return all neurons (B * T, N) and the new pair of (1, B, N).

        Args:
            features: (B * T, I), sequence after sequence.
            states: a pair of (1, B, N).
            episode_starts: (B * T,).
            timespans: (B * T,) in steps, None = 1.0.
        """
        h, c = states[0][0], states[1][0]
        sequences = h.shape[0]
        neurons, state = self.circuit.states(
            features.reshape(sequences, -1, features.shape[-1]),
            (h, c) if self.circuit.use_mixed else h,
            None if timespans is None else timespans.reshape(sequences, -1),
            resets=self._resets(episode_starts).reshape(sequences, -1),
        )
        h, c = state if isinstance(state, tuple) else (state, c)
        return neurons.flatten(0, 1), (h[None], c[None])

    def _resets(self, episode_starts: Tensor) -> Tensor:
        """Return where the state is cleared before a step: everywhere without memory."""
        return episode_starts > 0.5 if self.memory else torch.ones_like(episode_starts).bool()

    def logits(self, neurons: Tensor) -> Tensor:
        """Return the logits of one discrete action, (…, A), from all neurons (…, N)."""
        motor = self.circuit.read_out(neurons)
        return self.action_net(self.mlp_extractor.forward_actor(motor)) / self.temperature

    def _distribution(self, neurons: Tensor) -> Distribution:
        try:
            if isinstance(self.action_dist, CategoricalDistribution):
                return self.action_dist.proba_distribution(self.logits(neurons))
            motor = self.circuit.read_out(neurons)
            return self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(motor))
        except ValueError as error:  # of torch's distributions
            raise NonFiniteError("the network's output is NaN or infinite") from error

    def values(self, neurons: Tensor, features: Tensor) -> Tensor:
        """Return the critic's values (…, 1) of all neurons (…, N) and its features (…, I)."""
        inputs = {
            "circuit+encoder": (neurons, features),
            "circuit": (neurons,),
            "encoder": (features,),
        }[self.critic_reads]
        return self.value_net(self.mlp_extractor.forward_critic(torch.cat(inputs, -1)))

    def distribution_and_values(
        self, obs: PyTorchObs, states: tuple[Tensor, ...], episode_starts: Tensor
    ) -> tuple[Distribution, Tensor, tuple[Tensor, Tensor]]:
        """Return the actions' distribution, values (B * T, 1) and the new pair of (1, B, N).

        Args:
            obs: (B * T, …), sequence after sequence.
            states: a pair of (1, B, N).
            episode_starts: (B * T,).
        """
        features, critic_features = self._encode(obs)
        neurons, states = self._run_circuit(features, states, episode_starts)
        return self._distribution(neurons), self.values(neurons, critic_features), states

    def activations(
        self, obs: Tensor, states: tuple[Tensor, ...], episode_starts: Tensor
    ) -> tuple[Activations, tuple[Tensor, Tensor]]:
        """Return the activations of one step of discrete actions and the new pair of (1, B, N).

        Args:
            obs: (B, …).
            states: a pair of (1, B, N).
            episode_starts: (B,).
        """
        features, critic_features = self._encode(obs)
        kept = ~self._resets(episode_starts)[:, None]
        previous, c = states[0][0] * kept, states[1][0] * kept
        memory = getattr(self.circuit, "lstm", None)
        if memory is not None:
            previous, _ = memory(memory.input_map(features), previous, c)
        neurons, states = self._run_circuit(features, states, episode_starts)
        values = self.values(neurons, critic_features)[:, 0]
        return Activations(features, previous, neurons, self.logits(neurons), values), states

    def forward(
        self,
        obs: Tensor,
        lstm_states: RNNStates,
        episode_starts: Tensor,
        deterministic: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, RNNStates]:
        """Return actions (B, …), values (B, 1), log-probabilities (B,) and the new states."""
        distribution, values, states = self.distribution_and_values(
            obs, lstm_states.pi, episode_starts
        )
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        assert self.action_space.shape is not None
        actions = actions.reshape((-1, *self.action_space.shape))
        return actions, values, log_prob, RNNStates(states, states)

    def get_distribution(
        self,
        obs: Tensor,
        lstm_states: tuple[Tensor, ...],
        episode_starts: Tensor,
        timespans: Tensor | None = None,
    ) -> tuple[Distribution, tuple[Tensor, ...]]:
        """Return the actions' distribution and the new pair.

        timespans (B * T,) is the time since the previous observation in steps, None = 1.0.
        """
        features, _ = self._encode(obs)
        neurons, states = self._run_circuit(features, lstm_states, episode_starts, timespans)
        return self._distribution(neurons), states

    def action_logits(
        self,
        obs: Tensor,
        lstm_states: tuple[Tensor, ...],
        episode_starts: Tensor,
        timespans: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the logits (B * T, A) of `get_distribution` of one discrete action, and the pair.

        A distribution takes longer to set up than the circuit to run.
        """
        fused = fused_inference(self, obs, lstm_states) if timespans is None else None
        if fused is not None:
            logits, h = fused(obs, lstm_states[0][0], episode_starts > 0.5)
            return logits, (h[None], lstm_states[1])
        features, _ = self._encode(obs)
        neurons, states = self._run_circuit(features, lstm_states, episode_starts, timespans)
        return self.logits(neurons), states

    def predict_values(
        self, obs: Tensor, lstm_states: tuple[Tensor, ...], episode_starts: Tensor
    ) -> Tensor:
        """Return the values (B * T, 1)."""
        features, critic_features = self._encode(obs)
        neurons, _ = self._run_circuit(features, lstm_states, episode_starts)
        return self.values(neurons, critic_features)

    def evaluate_actions(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, obs: Tensor, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values (B * T, 1), log-probabilities (B * T,), entropies (B * T,) or None.

        obs (B * T, …) and actions (B * T, …) are sequence after sequence.
        """
        distribution, values, _ = self.distribution_and_values(obs, lstm_states.pi, episode_starts)
        return values, distribution.log_prob(actions), distribution.entropy()


class CnnNcpPolicy(MlpNcpPolicy):
    """`MlpNcpPolicy` for images, with a convolutional encoder (by default `CompactCNN`)."""

    default_wiring: ClassVar[WiringLike] = {"kind": "AutoNCP", "units": 64, "output_size": 16}

    def __init__(
        self,
        *args: Any,
        features_extractor_class: type[BaseFeaturesExtractor] = CompactCNN,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)


class MultiInputNcpPolicy(MlpNcpPolicy):
    """`MlpNcpPolicy` for dict observations, encoded by stable-baselines3's `CombinedExtractor`."""

    default_wiring: ClassVar[WiringLike] = CnnNcpPolicy.default_wiring

    def __init__(
        self,
        *args: Any,
        features_extractor_class: type[BaseFeaturesExtractor] = CombinedExtractor,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)


class CircuitShape(NamedTuple):
    """The sizes that sb3-contrib reads from an LSTM."""

    num_layers: int
    hidden_size: int
    input_size: int


class ActorCriticLayers(nn.Module):
    """Hidden layers between circuit and heads, whose inputs differ for actor and critic."""

    def __init__(
        self,
        actor_inputs: int,
        critic_inputs: int,
        net_arch: list[int] | dict[str, list[int]],
        activation_fn: type[nn.Module],
    ) -> None:
        super().__init__()
        if not isinstance(net_arch, dict):
            net_arch = {"pi": net_arch, "vf": net_arch}
        actor, critic = net_arch.get("pi", []), net_arch.get("vf", [])
        self.policy_net = nn.Sequential(*create_mlp(actor_inputs, -1, actor, activation_fn))
        self.value_net = nn.Sequential(*create_mlp(critic_inputs, -1, critic, activation_fn))
        self.latent_dim_pi = actor[-1] if actor else actor_inputs
        self.latent_dim_vf = critic[-1] if critic else critic_inputs

    def forward_actor(self, motor: Tensor) -> Tensor:
        """Return the actor's latent of the motor neurons."""
        return self.policy_net(motor)

    def forward_critic(self, inputs: Tensor) -> Tensor:
        """Return the critic's latent of what it reads."""
        return self.value_net(inputs)
