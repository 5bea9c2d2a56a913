"""One training in its own folder, which survives a crash at any moment.

    runs/pong-cfc-seed1/
      recipe.toml              as resolved: the file and the command line together
      progress.csv             a row a rollout, and one an evaluation
      tensorboard/             the same and more, for `tensorboard --logdir runs`
      checkpoint.safetensors   network, optimiser, step count, random states: what `--resume` needs
      policy/                  the best policy so far, as a saved policy
      curve.png                return over steps

Files are replaced whole (`files.atomic_write`), but for progress.csv and TensorBoard's events, which
grow. A checkpoint holds tensors and JSON, no code.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from ncp_agents.agents.recipe import Recipe, read_recipe, to_toml
from ncp_agents.agents.saved_policy import (
    CLONING,
    CURVE,
    PROGRESS,
    RECIPE,
    WEIGHTS,
    files,
    load_tensors,
    load_weights,
    save_tensors,
    weights,
)
from ncp_agents.errors import UserError
from ncp_agents.files import remove_temporary_files, write_text
from ncp_agents.sb3.sequence_ppo import SequencePPO

LOCK = ".training.lock"
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""Of Adam, for each parameter."""


@dataclass(frozen=True)
class Counters:
    """Where a training stands, besides its tensors and random states."""

    steps: int = 0
    updates: int = 0
    games: int = 0
    seconds: float = 0.0  # spent training, over all resumptions
    best_return: float | None = None  # of the evaluations

    def check(self) -> None:
        """Raises ValueError for what no training can have counted."""
        counts = (self.steps, self.updates, self.games)
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError(f"steps, updates and games are {counts}")
        check_numbers(self.seconds, self.best_return)


def check_numbers(seconds: float, *measured: float | None) -> None:
    """Raises ValueError for seconds, or something measured, that are none."""
    for number in (seconds, *measured):
        if number is not None and not (type(number) in (int, float) and math.isfinite(number)):
            raise ValueError(f"{number!r} is no finite number")
    if seconds < 0:
        raise ValueError(f"seconds are {seconds}")


class RunFolder:
    """The files of one run.

    Raises:
        UserError: from `create`, where the folder holds something already; from `open`, where it
            holds no run.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe = recipe

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunFolder:
        """A folder with nothing but a recipe is of a run that never began; one written by hand is
        not replaced by another.
        """
        begun = path.is_dir() and any(f.name not in (RECIPE, LOCK) for f in path.iterdir())
        if begun or (path.exists() and not path.is_dir()):
            raise UserError(
                f"{path} exists already; add --resume to go on with it, or --run for another folder"
            )
        if (path / RECIPE).is_file():
            there = read_recipe(path / RECIPE)
            if there != recipe and (path / RECIPE).read_text(encoding="utf-8") != to_toml(there):
                raise UserError(
                    f"{path / RECIPE} is another recipe, written by hand; name another --run"
                )
        run = cls(path, recipe)
        with run.lock():
            run.save_recipe()
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        if (path / WEIGHTS).exists():
            raise UserError(
                f"{path} is a saved policy, not a run folder; ncp-agents train makes one"
            )
        if not (path / RECIPE).is_file():
            raise UserError(
                f"{path} is not a run folder: it has no {RECIPE}; ncp-agents train makes one"
            )
        return cls(path, read_recipe(path / RECIPE))

    def save_recipe(self) -> None:
        """A file that says the same already keeps its comments."""
        if not ((self.path / RECIPE).is_file() and read_recipe(self.path / RECIPE) == self.recipe):
            write_text(self.path / RECIPE, to_toml(self.recipe))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """A context of the only one who works in the folder; entering raises UserError while there
        is another.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"somebody else is at work in {self.path}; name another --run"
            ) from None
        try:
            written = (RECIPE, self.progress.name, self.checkpoint.name, self.curve.name, CLONING)
            for path in [self.path / name for name in written] + files(self.policy):
                remove_temporary_files(path)
            yield
        finally:
            lock.release()

    @property
    def progress(self) -> Path:
        return self.path / PROGRESS

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def policy(self) -> Path:
        return self.path / "policy"

    @property
    def curve(self) -> Path:
        return self.path / CURVE

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def save_checkpoint(self, model: SequencePPO, counters: Counters) -> None:
        """Replace the checkpoint by the model's state now."""
        tensors = learning_state(model.policy, model.policy.optimizer)
        tensors["random.torch"] = torch.get_rng_state()
        algorithm, keys, *position = np.random.get_state(legacy=True)
        tensors["random.numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
        metadata = {
            "counters": json.dumps(asdict(counters)),
            "recent_games": json.dumps(list(model.ep_info_buffer or []), default=float),
            "random.numpy": json.dumps([algorithm, *position]),
            "random.python": json.dumps(random.getstate()),
        }
        save_tensors(self.checkpoint, tensors, metadata)

    def load_checkpoint(self, model: SequencePPO) -> Counters:
        """Put the checkpoint into a model made from the same recipe.

        Raises:
            UserError: a checkpoint that is damaged or of another network.
        """
        tensors, metadata = load_tensors(self.checkpoint)
        try:
            counters = Counters(**json.loads(metadata["counters"]))
            counters.check()
            recent_games = [
                {name: float(game[name]) for name in ("r", "l", "t")}
                for game in json.loads(metadata["recent_games"])
            ]
            algorithm, *position = json.loads(metadata["random.numpy"])
            version, internal, gauss = json.loads(metadata["random.python"])
            torch_state, numpy_keys = tensors.pop("random.torch"), tensors.pop("random.numpy")
            random.setstate((version, tuple(internal), gauss))
            np.random.set_state((algorithm, numpy_keys.numpy().astype(np.uint32), *position))
            torch.set_rng_state(torch_state)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise UserError(
                f"{self.checkpoint} is not a checkpoint of a run ({type(error).__name__}: {error})"
            ) from None
        restore_learning(model.policy, model.policy.optimizer, tensors, self.checkpoint)
        model.num_timesteps = counters.steps
        model._n_updates = counters.updates
        assert model.ep_info_buffer is not None
        model.ep_info_buffer.extend(recent_games)
        return counters


def learning_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What learning goes on from, besides random states: weights and the optimiser's moments."""
    tensors = {f"network.{name}": value for name, value in weights(network).items()}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors[f"optimizer.{key}.{names[id(parameter)]}"] = torch.as_tensor(value)
    return tensors


def restore_learning(
    network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], path: Path
) -> None:
    """Put back what `learning_state` gave, read from `path`.

    Raises:
        UserError: tensors of another network, moments that are not its own.
    """
    own = {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith("network.")}
    load_weights(network, own, path)
    parameters = dict(network.named_parameters())
    moments: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        group, _, rest = name.partition(".")
        key, _, parameter = rest.partition(".")
        if group == "network":
            continue
        if group != "optimizer" or parameter not in parameters or key not in MOMENTS:
            raise UserError(f"{path} is not a checkpoint of this network: it has {name!r}")
        shape = torch.Size() if key == "step" else parameters[parameter].shape
        if value.shape != shape or not torch.isfinite(value).all():
            raise UserError(
                f"{path} is damaged: {name} is {tuple(value.shape)}, expected finite numbers "
                f"{tuple(shape)}"
            )
        moments.setdefault(parameter, {})[key] = value
    for parameter, known in moments.items():
        if known.keys() != MOMENTS:
            lacking = ", ".join(sorted(MOMENTS - known.keys()))
            raise UserError(f"{path} is damaged: it lacks {lacking} of {parameter}")
        optimizer.state[parameters[parameter]].update(known)
