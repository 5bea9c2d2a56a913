"""Activations of a policy while it acts, and the trace of an episode for videos and the page."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ncp_agents.agents.saved_policy import SavedPolicy, State
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.evaluation.rollout import Step, env_factory, env_groups, first_episodes, rollout
from ncp_agents.explain.circuit_graph import gates
from ncp_agents.explain.frame_store import FrameStore
from ncp_agents.sb3.policies import Activations


class ActivationRecorder:
    """Acts as a policy does, and keeps the `activations` of its last step."""

    def __init__(self, policy: SavedPolicy) -> None:
        self.policy = policy
        self.activations: Activations | None = None

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """Return actions (B,) and the new state, as `SavedPolicy.act` does."""
        network, batch = self.policy.network, len(observation)
        if state is None:
            state = (np.zeros((1, batch, network.circuit.state_size), np.float32),) * 2
        if episode_start is None:
            episode_start = np.zeros(batch, bool)
        with torch.no_grad():
            self.activations, states = network.activations(
                torch.as_tensor(observation, device=network.device),
                tuple(torch.as_tensor(part, device=network.device) for part in state),
                torch.as_tensor(episode_start, dtype=torch.float32, device=network.device),
            )
            actions = self.policy.sample_actions(self.activations.logits, deterministic)
        return actions.cpu().numpy(), tuple(part.cpu().numpy() for part in states)


@dataclass(frozen=True)
class Trace:
    """Steps of one environment. Axes: T steps, I features, N neurons, A actions."""

    frames: FrameStore  # T, each of the moment of the step's observation
    features: np.ndarray  # (T, I) float32
    previous_state: np.ndarray  # (T, N) float32, which the neurons read
    state: np.ndarray  # (T, N) float32
    gates: np.ndarray  # (T, N) float32
    probabilities: np.ndarray  # (T, A) float32
    values: np.ndarray  # (T,) float32, of the clipped and discounted rewards to come
    actions: np.ndarray  # (T,) int64
    rewards: np.ndarray  # (T,) float32, unclipped
    resets: np.ndarray  # (T,) bool: the state was cleared before the step
    ends: np.ndarray  # (T,) bool: the last step of an episode

    def __len__(self) -> int:
        return len(self.values)

    @property
    def signals(self) -> np.ndarray:
        """(T, K), in the order of `circuit_graph`."""
        parts = (self.features, self.state, self.probabilities, self.previous_state, self.gates)
        return np.concatenate(parts, 1)

    @property
    def returns(self) -> np.ndarray:
        """(T,): the return of the episode so far, with this step's reward."""
        episodes = np.split(self.rewards, np.flatnonzero(self.ends) + 1)
        return np.concatenate([np.cumsum(episode, dtype=np.float64) for episode in episodes])


def trace(recorder: ActivationRecorder, steps: Iterable[Step]) -> Trace:
    """Return the trace of the first environment; `recorder` is the policy that acts in the steps.

    Raises:
        ValueError: steps without RGB frames, or no steps.
    """
    frames = FrameStore()
    rows = []
    for step in steps:
        if step.rgb_frames is None:
            raise ValueError("the steps have no RGB frames; make the env with 'rgb_array'")
        assert recorder.activations is not None
        frames.append(step.rgb_frames[0])
        own = (part[0].cpu().numpy() for part in recorder.activations)
        ends = "episode" in step.infos[0]
        rows.append((*own, step.actions[0], step.rewards[0], step.resets[0], ends))
    if not rows:
        raise ValueError("there are no steps, expected at least one")
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    features, previous, neurons, logits, *others = columns
    found = gates(recorder.policy, features, neurons, previous)
    probabilities = torch.from_numpy(logits).softmax(-1).numpy()
    return Trace(frames, features, previous, neurons, found, probabilities, *others)


def record_trace(
    policy: SavedPolicy,
    episodes: int = 1,
    protocol: str | AtariProtocol = "v4",
    seed: int = 0,
    deterministic: bool = False,
    max_steps: int | None = None,
) -> Trace:
    """Run episodes in one environment and return their trace.

    Args:
        policy: acts.
        episodes: number of whole episodes.
        protocol: taken as its evaluation.
        seed: of the environment and sampled actions.
        deterministic: take greedy actions instead of sampled ones.
        max_steps: limit of the trace.
    """
    make_env = env_factory(policy, protocol, render=True)
    with env_groups(policy, make_env, 1, seed) as [(policy, env)]:
        recorder = ActivationRecorder(policy)
        steps = first_episodes(rollout(recorder, env, deterministic), episodes)
        steps = itertools.islice(steps, max_steps)
        return trace(recorder, tqdm(steps, policy.name, unit=" steps", disable=None))
