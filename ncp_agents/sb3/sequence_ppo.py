"""RecurrentPPO that trains on whole sequences, without padding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.buffers import (
    RecurrentDictRolloutBuffer,
    RecurrentRolloutBuffer,
)
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from ncp_agents.errors import NonFiniteError
from ncp_agents.sb3.nonfinite import not_finite
from ncp_agents.sb3.policies import CnnNcpPolicy, MlpNcpPolicy, MultiInputNcpPolicy
from ncp_agents.torch.threads import one_thread

CRITIC_PREFIXES = (  # of the names of parameters that belong to the critic alone
    "value_net.",
    "mlp_extractor.value_net.",
    "vf_features_extractor.",
    "lstm_critic.",
    "critic.",
)


class Losses(NamedTuple):
    """Losses of a minibatch, and how far the policy has moved in it; scalars."""

    policy: Tensor
    value: Tensor
    entropy_loss: Tensor
    """The negative entropy; without an analytical one, log_prob of the sampled actions."""
    kl: Tensor
    """Estimator k3 of http://joschu.net/blog/kl-approx.html."""
    clip_fraction: Tensor


KL = Losses._fields.index("kl")


class SequencePPO(RecurrentPPO):
    """RecurrentPPO whose minibatches are whole sequences of some environments.

    sb3-contrib cuts each minibatch at every episode boundary, pads the parts to the longest, and
    steps an LSTM through them in Python where an episode starts. Here a minibatch is a set of
    equally long sequences, one run of the rollout each, and the circuit's state is cleared inside
    the scan where an episode starts: nothing is padded, and no step is looped over in Python.

    Args: those of RecurrentPPO, and
        batch_size: samples a minibatch, a multiple of sequence_length.
        sequence_length: steps a sequence, a divisor of n_steps; None takes n_steps. Each sequence
            starts from the state that the rollout had there.
        ent_coef: a float, or a schedule of the progress remaining, like learning_rate.
        critic_warmup: steps at the start in which only what belongs to the critic alone is trained,
            so that an untrained critic does not spoil an actor that plays already.

    Raises:
        ValueError: sizes that do not divide.
        NonFiniteError: from `learn`, where a loss or a weight is NaN or infinite.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        **RecurrentPPO.policy_aliases,
        "MlpNcpPolicy": MlpNcpPolicy,
        "CnnNcpPolicy": CnnNcpPolicy,
        "MultiInputNcpPolicy": MultiInputNcpPolicy,
    }

    def __init__(
        self,
        *args: Any,
        sequence_length: int | None = None,
        critic_warmup: int = 0,
        **kwargs: Any,
    ) -> None:
        self.sequence_length, self.critic_warmup = sequence_length, critic_warmup
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        length = self.sequence_length or self.n_steps
        sequences = self.n_steps // length * self.n_envs
        if self.n_steps % length:
            raise ValueError(
                f"sequence_length is {length}, expected a divisor of n_steps = {self.n_steps}"
            )
        if self.batch_size is None:
            self.batch_size = sequences * length
        if self.batch_size % length or sequences % (self.batch_size // length):
            raise ValueError(
                f"batch_size is {self.batch_size}, expected {length} (steps a sequence) times a "
                f"divisor of {sequences} (sequences a rollout: {self.n_envs} environments, "
                f"{self.n_steps} steps)"
            )

    def _minibatches(self) -> Iterator[dict[str, Any]]:
        """Yield one epoch of the rollout, in whole sequences and random order.

        Axes: B sequences, T steps; everything is flat, (B * T, …), sequence after sequence.
        """
        buffer = cast("RecurrentRolloutBuffer | RecurrentDictRolloutBuffer", self.rollout_buffer)
        length = self.sequence_length or self.n_steps
        assert self.batch_size is not None
        size = self.batch_size // length
        starts = np.arange(0, self.n_steps, length)
        sequences = np.stack(np.meshgrid(starts, np.arange(self.n_envs), indexing="ij"), -1)
        order = np.random.permutation(sequences.reshape(-1, 2))
        steps = np.arange(length)
        for first in range(0, len(order), size):
            start, env = order[first : first + size].T
            rows, columns = start[:, None] + steps, env[:, None]  # (B, T), (B, 1)

            def flat(values: np.ndarray, rows=rows, columns=columns) -> Tensor:
                picked = values[rows, columns]
                return torch.as_tensor(picked.reshape(-1, *picked.shape[2:]), device=self.device)

            def state(values: np.ndarray, start=start, env=env) -> Tensor:
                # (n_steps, layers, n_envs, N) → (layers, B, N)
                picked = values[start, :, env].swapaxes(0, 1)
                return torch.as_tensor(np.ascontiguousarray(picked), device=self.device)

            observations = buffer.observations
            actions = flat(buffer.actions)
            if isinstance(self.action_space, spaces.Discrete):
                actions = actions.long().flatten()
            yield {
                "observations": (
                    {key: flat(values) for key, values in observations.items()}
                    if isinstance(observations, dict)
                    else flat(observations)
                ),
                "actions": actions,
                "old_values": flat(buffer.values),
                "old_log_prob": flat(buffer.log_probs),
                "advantages": flat(buffer.advantages),
                "returns": flat(buffer.returns),
                "states": RNNStates(
                    (state(buffer.hidden_states_pi), state(buffer.cell_states_pi)),
                    (state(buffer.hidden_states_vf), state(buffer.cell_states_vf)),
                ),
                "episode_starts": flat(buffer.episode_starts),
            }

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """Collect a rollout as RecurrentPPO does, with frozen weights and one thread of torch."""
        self._check_finite()
        frozen = getattr(self.policy, "frozen", nullcontext)  # sb3-contrib's policies have none
        with one_thread(), frozen():
            return super().collect_rollouts(*args, **kwargs)

    def learn(self, *args: Any, **kwargs: Any) -> Self:
        """Train as RecurrentPPO does."""
        try:
            return super().learn(*args, **kwargs)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} after {self.num_timesteps:,} steps") from error

    def _check_finite(self, loss: float = 0.0) -> None:
        """Raise NonFiniteError where a loss or a weight is NaN or infinite."""
        bad = ["the loss"] if not np.isfinite(loss) else not_finite(self.policy)
        if bad:
            raise NonFiniteError(f"{bad[0]} is NaN or infinite")

    def train(self) -> None:
        """Update the policy from the rollout, as PPO does (Schulman et al. 2017)."""
        policy = cast(RecurrentActorCriticPolicy, self.policy)
        policy.set_training_mode(True)
        self._update_learning_rate(policy.optimizer)
        # Schedules, once the model is set up.
        clip_range, clip_range_vf, ent_coef = (
            schedule(self._current_progress_remaining) if callable(schedule) else schedule
            for schedule in (self.clip_range, self.clip_range_vf, self.ent_coef)
        )
        assert clip_range is not None
        assert ent_coef is not None
        warming_up = self.num_timesteps <= self.critic_warmup
        figures: list[list[float]] = []
        stop = False
        for _ in range(self.n_epochs):
            for batch in self._minibatches():
                losses = self._losses(batch, clip_range, clip_range_vf)
                loss = losses.policy + ent_coef * losses.entropy_loss + self.vf_coef * losses.value
                figures.append([figure.item() for figure in (*losses, loss)])
                if self.target_kl is not None and figures[-1][KL] > 1.5 * self.target_kl:
                    stop = True
                    break
                policy.optimizer.zero_grad()
                loss.backward()
                if warming_up:
                    for name, parameter in policy.named_parameters():
                        if not name.startswith(CRITIC_PREFIXES):
                            parameter.grad = None
                torch.nn.utils.clip_grad_norm_(policy.parameters(), self.max_grad_norm)
                policy.optimizer.step()
            self._n_updates += 1
            if stop:
                break

        names = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction")
        for name, mean in zip(names, np.mean(figures, axis=0), strict=False):
            self.logger.record(f"train/{name}", mean)
        self._check_finite(figures[-1][-1])
        self.logger.record("train/loss", figures[-1][-1])
        self.logger.record(
            "train/explained_variance",
            explained_variance(
                self.rollout_buffer.values.flatten(), self.rollout_buffer.returns.flatten()
            ),
        )
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)
        if callable(self.ent_coef):
            self.logger.record("train/ent_coef", ent_coef)
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)

    def _losses(
        self, batch: dict[str, Any], clip_range: float, clip_range_vf: float | None
    ) -> Losses:
        values, log_prob, entropy = cast(RecurrentActorCriticPolicy, self.policy).evaluate_actions(
            batch["observations"], batch["actions"], batch["states"], batch["episode_starts"]
        )
        values, advantages = values.flatten(), batch["advantages"]
        if self.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_prob - batch["old_log_prob"]
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        if clip_range_vf is not None:
            old = batch["old_values"]
            values = old + (values - old).clamp(-clip_range_vf, clip_range_vf)
        with torch.no_grad():
            kl = ((ratio - 1) - log_ratio).mean()
            clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
        return Losses(
            policy=-torch.min(advantages * ratio, advantages * clipped).mean(),
            value=F.mse_loss(batch["returns"], values),
            entropy_loss=(log_prob if entropy is None else -entropy).mean(),
            kl=kl,
            clip_fraction=clip_fraction,
        )
