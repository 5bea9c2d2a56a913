"""What training continues from: weights, optimiser, progress and random states.

They are stored as tensors and JSON in a safetensors file, which holds no code.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from ncp_agents.agents.recipe import NonNegative
from ncp_agents.agents.weights import load_tensors, load_weights, save_tensors, weights
from ncp_agents.errors import UserError
from ncp_agents.schema import Finite, Validated, parse_json

Total = Annotated[int, Field(ge=0)]
EpisodeInfo = Annotated[dict[Literal["r", "l", "t"], float], Field(min_length=3)]
"""Return, length and time of an episode, as stable-baselines3's `Monitor` reports them."""

TORCH_RANDOM = "random.torch"
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""Of Adam, for each parameter."""


@dataclass(frozen=True)
class TrainingProgress(Validated):
    """How far a training has come."""

    steps: Total = 0
    episodes: Total = 0
    seconds: NonNegative = 0.0  # of training, over all resumptions
    best_return: Finite | None = None  # of the evaluations


@dataclass(frozen=True)
class _Metadata(Validated):
    """What a checkpoint of training holds beside its tensors."""

    progress: TrainingProgress
    recent_episodes: list[EpisodeInfo]  # of the running means, as in `ep_info_buffer`
    python_random: tuple[int, tuple[int, ...], float | None]  # random.getstate()
    numpy_random: tuple[str, list[int], int, int, float]  # np.random.get_state()


def save_checkpoint(path: Path, model: BaseAlgorithm, progress: TrainingProgress) -> None:
    """Replace the checkpoint by the model's state now."""
    tensors = learning_state(model.policy, model.policy.optimizer)
    tensors[TORCH_RANDOM] = torch.get_rng_state()
    metadata = {
        "progress": asdict(progress),
        "recent_episodes": list(model.ep_info_buffer or []),
        "python_random": random.getstate(),
        "numpy_random": np.random.get_state(legacy=True),
    }
    save_tensors(path, tensors, {"training": json.dumps(metadata, default=_plain)})


def load_checkpoint(path: Path, model: BaseAlgorithm, window: int) -> TrainingProgress:
    """Put a checkpoint into a new model made from the same recipe, whose `learn` then continues.

    Args:
        path: of the checkpoint.
        model: whose environments have not been reset yet.
        window: episodes in the running means.

    Raises:
        UserError: a checkpoint that is damaged, of another kind or of another network.
    """
    tensors, metadata = load_tensors(path)
    if "training" not in metadata:
        raise UserError(f"{path} is not a checkpoint of a training")
    state = parse_json(_Metadata, metadata["training"], path)
    restore_learning(model.policy, model.policy.optimizer, tensors, path)
    algorithm, words, position, has_gauss, gauss = state.numpy_random
    try:
        random.setstate(state.python_random)
        keys = np.array(words, np.uint32)
        np.random.set_state((algorithm, keys, position, has_gauss, gauss))
        torch.set_rng_state(tensors[TORCH_RANDOM])
    except (LookupError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path} is damaged: its random states ({error})") from None
    model.num_timesteps = state.progress.steps
    model.ep_info_buffer = deque(state.recent_episodes, maxlen=window)
    model.ep_success_buffer = deque(maxlen=window)
    return state.progress


def learning_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the weights and the optimiser's moments by name."""
    tensors = {f"network.{name}": value for name, value in weights(network).items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{index}.{name}"] = value
    return tensors


def restore_learning(
    network: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Put back what `learning_state` returned, read from `path`.

    Raises:
        UserError: tensors of another network.
    """
    shapes = [parameter.shape for parameter in network.parameters()]
    own: dict[str, Tensor] = {}
    moments: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, value in tensors.items():
        group, _, rest = name.partition(".")
        if group == "network":
            own[rest] = value
        elif group == "optimizer":
            index, _, moment = rest.partition(".")
            place = int(index) if index.isdecimal() else len(shapes)
            known = place < len(shapes) and moment in MOMENTS
            # The fused optimiser reads memory by the parameter's shape.
            shape = torch.Size() if moment == "step" or not known else shapes[place]
            if not known or value.shape != shape or not torch.isfinite(value).all():
                raise UserError(f"{path} is not a checkpoint of this network: {name}")
            moments[place][moment] = value
    load_weights(network, own, path)
    if any(each.keys() != MOMENTS for each in moments.values()):
        raise UserError(f"{path} is not a checkpoint of this network: moments are missing")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": dict(moments), "param_groups": groups})


def _plain(value: Any) -> Any:
    """Return a NumPy array or number as JSON's own types."""
    return value.tolist()
