"""A trained policy as a folder that a person can read and no code hides in.

    policies/pong-cfc/
      recipe.toml           how it was trained, and so how the network is built
      weights.safetensors   its parameters
      scores.json           what it reaches (`ncp-agents evaluate` writes it)
      progress.csv          how it learnt; cloning.csv, a row an epoch, of a clone
      curve.png             the same as a picture
      README.md             the same in words

Only the first two are needed. Neither format can hold code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ncp_agents.agents.recipe import Recipe, read_recipe, to_toml
from ncp_agents.envs.games import action_meanings
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write, sha256, write_text
from ncp_agents.sb3.encoders import find_encoder
from ncp_agents.sb3.policies import CnnNcpPolicy

RECIPE, WEIGHTS = "recipe.toml", "weights.safetensors"
PROGRESS, CLONING, CURVE = "progress.csv", "cloning.csv", "curve.png"

State = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class SavedPolicy:
    """A policy and how it came about.

    Axes: B environments, N neurons.
    """

    recipe: Recipe
    network: CnnNcpPolicy
    folder: Path | None = None
    generator: torch.Generator | None = None
    """Draws the actions; None is torch's own, which all share."""
    weights_sha256: str | None = None
    """Of the file that the weights were read from."""

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def observation_space(self) -> spaces.Space:
        return self.network.observation_space

    def act(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        timespans: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """observation (B, C, H, W) uint8, state from the last call or None, episode_start (B,)
        bool, timespans (B,) since the previous observation in steps, None = 1.0 → actions (B,) and
        the new state. Does what stable-baselines3's `predict` does, with less around it.
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
            actions = self.choose(logits, deterministic)
        return actions.cpu().numpy(), tuple(part.cpu().numpy() for part in states)

    predict = act

    def choose(self, logits: Tensor, deterministic: bool) -> Tensor:
        """logits (B, A) → actions (B,), the likeliest or drawn."""
        if deterministic:
            return logits.argmax(-1)
        sums = logits.softmax(-1).cumsum(-1)  # torch.multinomial takes several times as long
        drawn = torch.rand(len(sums), 1, device=sums.device, generator=self.generator)
        return (sums[:, :-1] <= drawn * sums[:, -1:]).sum(-1)


def observation_space(protocol: AtariProtocol) -> spaces.Box:
    shape = (protocol.frame_stack, protocol.frame_size, protocol.frame_size)
    return spaces.Box(0, 255, shape, np.uint8)


def policy_kwargs(recipe: Recipe) -> dict[str, Any]:
    """The recipe's network as the `policy_kwargs` of RecurrentPPO."""
    circuit = recipe.circuit
    features = {"features_dim": recipe.policy.features}
    circuit_kwargs: dict[str, Any] = {}
    if circuit.cell != "lstm":
        circuit_kwargs["mixed_memory"] = circuit.mixed_memory
    if circuit.cell == "cfc":
        circuit_kwargs |= {"mode": circuit.mode, "init": circuit.init}
        if circuit.mask_time_gates:
            circuit_kwargs["mask_time_gates"] = True
    return {
        "features_extractor_class": find_encoder(recipe.policy.encoder),
        "features_extractor_kwargs": features,
        "wiring": circuit.wiring_config(),
        "cell": circuit.cell,
        "critic": recipe.policy.critic,
        "memory": recipe.policy.memory,
        "circuit_kwargs": circuit_kwargs,
    }


def build(recipe: Recipe) -> CnnNcpPolicy:
    """The recipe's network, freshly initialised.

    Raises:
        UserError: a wiring that cannot be, or sizes beyond this machine's memory.
    """
    actions = spaces.Discrete(len(action_meanings(recipe.environment.game)))
    try:
        space = observation_space(recipe.environment.atari_protocol())
        return CnnNcpPolicy(space, actions, lambda _: 0.0, **policy_kwargs(recipe))
    except (ValueError, MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
        raise UserError(f"recipe {recipe.name!r}: {error}") from None


def save(folder: Path, recipe: Recipe, network: CnnNcpPolicy) -> None:
    """Write recipe and weights; other files of the folder stay."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, weights(network))
    write_text(folder / RECIPE, to_toml(recipe))


def load(folder: Path | str, device: str = "cpu") -> SavedPolicy:
    """A saved policy.

    Raises:
        UserError: no such folder, a missing, truncated or foreign file, weights that do not fit
            the recipe; the message names the file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no policy folder {folder}; ncp-agents policies lists some")
    for name in (RECIPE, WEIGHTS):
        if (folder / "policy" / name).is_file() and not (folder / name).is_file():
            raise UserError(f"{folder} is a run; its policy is {folder / 'policy'}")
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is not a saved policy: it lacks {name}"
                + ("; train it: ncp-agents train " + folder.name if name == WEIGHTS else "")
            )
    recipe = read_recipe(folder / RECIPE)
    network = build(recipe)
    tensors, _ = load_tensors(folder / WEIGHTS)
    load_weights(network, tensors, folder / WEIGHTS)
    network.set_training_mode(False)
    return SavedPolicy(recipe, network.to(device), folder, weights_sha256=sha256(folder / WEIGHTS))


def files(folder: Path) -> list[Path]:
    """The files that `load` needs."""
    return [folder / RECIPE, folder / WEIGHTS]


def weights(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and masks by name. A state dict would list the encoder, which actor and critic
    share, three times.
    """
    return dict(network.named_parameters()) | dict(network.named_buffers())


def load_weights(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Put tensors, read from `path`, into the network.

    Raises:
        UserError: names, shapes or synapses that are not the network's, or numbers that are not
            finite.
    """
    expected = weights(network)
    missing, foreign = (
        sorted(expected.keys() - tensors.keys()),
        sorted(tensors.keys() - expected.keys()),
    )
    if missing or foreign:
        raise UserError(
            f"{path} does not fit the recipe: "
            + "; ".join(
                f"{what} {names[0]!r}" + (f" and {len(names) - 1} more" if names[1:] else "")
                for what, names in (("it lacks", missing), ("it should not have", foreign))
                if names
            )
        )
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise UserError(
                f"{path} does not fit the recipe: {name} is {tuple(tensors[name].shape)}, expected "
                f"{tuple(tensor.shape)}"
            )
        if tensors[name].dtype != tensor.dtype:
            raise UserError(
                f"{path} does not fit the recipe: {name} is {tensors[name].dtype}, expected "
                f"{tensor.dtype}"
            )
        if not torch.isfinite(tensors[name]).all():
            raise UserError(f"{path} is damaged: {name} holds NaN or infinity")
    for name, mask in network.named_buffers():
        if not torch.equal(mask.cpu(), tensors[name].to("cpu", mask.dtype)):
            raise UserError(f"{path} does not fit the recipe: {name} tells of another wiring")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """A safetensors file, replaced whole."""
    with atomic_write(path) as temporary:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(contiguous, temporary, metadata)
        except SafetensorError as error:  # what the disk said, in words only
            raise OSError(f"{path} could not be written: {error}") from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a safetensors file.

    Raises:
        UserError: a file that is not one, or is cut short.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}); copy it again or train anew"
        ) from None
