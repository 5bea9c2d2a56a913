"""A trained policy as a folder of readable files without code.

    policies/pong-cfc/
      recipe.toml           how it was trained, and so how the network is built
      weights.safetensors   its parameters
      scores.json           its scores (`ncp-agents evaluate` writes it)
      progress.csv          returns and losses during training; cloning.csv of a clone
      curve.png             the same as a picture
      README.md             the model card

Only the first two are needed; no file format here can hold code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ncp_agents.agents.recipe import RECIPE, Recipe, read_recipe, to_toml
from ncp_agents.agents.weights import load_tensors, load_weights, save_tensors, weights
from ncp_agents.envs.games import action_meanings
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.files import check_writable, sha256, write_text
from ncp_agents.sb3.encoders import find_encoder
from ncp_agents.sb3.policies import CnnNcpPolicy

WEIGHTS, PROGRESS, CLONING = "weights.safetensors", "progress.csv", "cloning.csv"
CURVE = "curve.png"

State = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class SavedPolicy:
    """A policy with the recipe that it was trained by.

    Axes: B environments, C, H, W observation, A actions.

    Attributes:
        generator: of sampled actions; None is torch's global one.
        weights_sha256: of the file that the weights were read from.
    """

    recipe: Recipe
    network: CnnNcpPolicy
    folder: Path | None = None
    generator: torch.Generator | None = None
    weights_sha256: str | None = None

    @property
    def name(self) -> str:
        """Return the recipe's name."""
        return self.recipe.name

    @property
    def device(self) -> torch.device:
        """Return where the network's parameters are."""
        return self.network.device

    @property
    def observation_space(self) -> spaces.Space:
        """Return the space of a single environment's observations."""
        return self.network.observation_space

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        timespans: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """Return actions (B,) and the circuit's next state, as stable-baselines3's `predict`.

        Args:
            observation: (B, C, H, W) uint8.
            state: what the last call returned; None is the initial state.
            episode_start: (B,) bool, True where the state is reset first; None is nowhere.
            deterministic: greedy actions instead of sampled ones.
            timespans: (B,) since the previous observation, in steps; None is 1.0.
        """
        if self.network.training:
            self.network.set_training_mode(False)
        batch, neurons, device = len(observation), self.network.circuit.state_size, self.device
        if state is None:
            state = (np.zeros((1, batch, neurons), np.float32),) * 2
        if episode_start is None:
            episode_start = np.zeros(batch, bool)
        with torch.inference_mode():
            logits, states = self.network.action_logits(
                torch.as_tensor(observation, device=device),
                tuple(torch.as_tensor(part, device=device) for part in state),
                torch.as_tensor(episode_start, device=device),
                None if timespans is None else torch.as_tensor(timespans, device=device).float(),
            )
            actions = self.sample_actions(logits, deterministic)
        return actions.cpu().numpy(), tuple(part.cpu().numpy() for part in states)

    def sample_actions(self, logits: Tensor, deterministic: bool) -> Tensor:
        """Return actions (B,), sampled or greedy, from logits (B, A)."""
        if deterministic:
            return logits.argmax(-1)
        sums = logits.softmax(-1).cumsum(-1)  # torch.multinomial takes several times as long
        uniform = torch.rand(len(sums), 1, device=sums.device, generator=self.generator)
        return (sums[:, :-1] <= uniform * sums[:, -1:]).sum(-1)


def observation_space(protocol: AtariProtocol) -> spaces.Box:
    """Return the space of a protocol's observations, (C, H, W) uint8."""
    shape = (protocol.frame_stack, protocol.frame_size, protocol.frame_size)
    return spaces.Box(0, 255, shape, np.uint8)


def policy_kwargs(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's network as `policy_kwargs` of RecurrentPPO."""
    circuit = recipe.circuit
    circuit_kwargs: dict[str, Any] = {}
    if circuit.cell != "lstm":
        circuit_kwargs["mixed_memory"] = circuit.mixed_memory
    if circuit.cell == "cfc":
        for name in ("mode", "init", "mask_time_gates"):
            circuit_kwargs[name] = getattr(circuit, name)
    return {
        "features_extractor_class": find_encoder(recipe.policy.encoder),
        "features_extractor_kwargs": {"features_dim": recipe.policy.features},
        "wiring": circuit.wiring_config(),
        "cell": circuit.cell,
        "critic": recipe.policy.critic,
        "memory": recipe.policy.memory,
        "circuit_kwargs": circuit_kwargs,
    }


def build(recipe: Recipe) -> CnnNcpPolicy:
    """Return the recipe's network, freshly initialised.

    Raises:
        UserError: sizes that the wiring does not allow.
    """
    actions = spaces.Discrete(len(action_meanings(recipe.environment.game)))
    try:
        space = observation_space(recipe.environment.atari_protocol())
        return CnnNcpPolicy(space, actions, lambda _: 0.0, **policy_kwargs(recipe))
    except ValueError as error:
        raise UserError(f"recipe {recipe.name!r}: {error}") from None


def save(folder: Path, recipe: Recipe, network: CnnNcpPolicy) -> None:
    """Write recipe and weights; other files of the folder stay."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, weights(network))
    write_text(folder / RECIPE, to_toml(recipe))


def load(folder: Path | str, device: str = "cpu") -> SavedPolicy:
    """Return the policy of a folder.

    Raises:
        UserError: no such folder, a missing, truncated or foreign file, weights that do not fit
            the recipe; the message names the file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no policy folder {folder}; list some: ncp-agents policies")
    for path in files(folder):
        if path.is_file():
            continue
        if (folder / "policy" / path.name).is_file():
            raise UserError(f"{folder} is a run; its policy is {folder / 'policy'}")
        advice = f"; train it: ncp-agents train {folder.name}" if path.name == WEIGHTS else ""
        raise UserError(f"{folder} is not a saved policy: it lacks {path.name}{advice}")
    recipe = read_recipe(folder / RECIPE)
    network = build(recipe)
    tensors, _ = load_tensors(folder / WEIGHTS)
    load_weights(network, tensors, folder / WEIGHTS)
    network.set_training_mode(False)
    return SavedPolicy(recipe, network.to(device), folder, weights_sha256=sha256(folder / WEIGHTS))


def files(folder: Path) -> list[Path]:
    """Return the files that `load` needs."""
    return [folder / RECIPE, folder / WEIGHTS]


def check_destination(destination: Path, recipe: Recipe) -> None:
    """Check before the work that its policy can be saved in a folder.

    Raises:
        UserError: the folder cannot be written, or holds a policy for another game.
    """
    if (destination / RECIPE).is_file():
        game = read_recipe(destination / RECIPE).environment.game
        if game != recipe.environment.game:
            raise UserError(f"{destination} holds a policy for {game}; name another: --save FOLDER")
    check_writable(destination / RECIPE, "--save FOLDER")
