"""Behaviour cloning: demos and a recipe in, a saved recurrent policy out.

The critic learns along, from the demos' discounted returns: PPO can carry on from the clone at
once, and the encoder finds what matters on the screen sooner.

A run has its own folder, which survives a crash at any moment:

    runs/pong-cfc-clone-seed1/
      recipe.toml              as resolved
      cloning.csv              a row an epoch
      checkpoint.safetensors   network, optimiser and epoch: what `--resume` needs
      policy/                  the best policy so far, as a saved policy
      curve.png                loss and accuracy over the epochs, and returns

Axes: B games side by side, T steps of a chunk, A actions.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3.common.distributions import CategoricalDistribution
from torch import Tensor
from tqdm import tqdm

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, load_tensors, save_tensors
from ncp_agents.datasets.cache import Cache
from ncp_agents.datasets.demonstrations import Demonstrations
from ncp_agents.datasets.sequences import Chunk, EpisodeSubset, chunks
from ncp_agents.envs.games import action_meanings
from ncp_agents.errors import NonFiniteError, UserError
from ncp_agents.evaluation.evaluate import evaluate
from ncp_agents.files import atomic_write
from ncp_agents.rendering.cloning_curve import draw_cloning_curve
from ncp_agents.sb3.nonfinite import not_finite
from ncp_agents.training.run_folder import (
    RunFolder,
    check_numbers,
    learning_state,
    restore_learning,
)

EVALUATION_SEED = 2_000_000  # far from the seeds of demos
SAME = ("frame_stack", "frame_size", "frame_skip", "full_action_space", "sticky_actions")
"""Of the protocol, in demos and recipe."""
WHOLE_GAMES = 256  # steps of a chunk where nothing is learnt: only memory limits them


@dataclass(frozen=True)
class Epoch:
    """A row of cloning.csv."""

    epoch: int
    seconds: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    eval_return: float | None = None


@dataclass(frozen=True)
class Counters:
    """Where a cloning stands, besides its tensors."""

    epoch: int = 0
    seconds: float = 0.0
    best_return: float | None = None
    best_loss: float | None = None
    since_best_loss: int = 0

    def check(self) -> None:
        """Raises ValueError for what no cloning can have counted."""
        counts = self.epoch, self.since_best_loss
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError(f"epoch and since_best_loss are {counts}")
        check_numbers(self.seconds, self.best_return, self.best_loss)


def clone(
    run: RunFolder,
    demos: Sequence[Demonstrations],
    *,
    resume: bool = False,
    progress: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> Counters:
    """Clone until the recipe's epochs are done, the validation loss no longer falls, or `stopped`
    says so, after each epoch.

    Raises:
        UserError: as `check_demonstrations`; a damaged file, named; a checkpoint that is damaged, of
            another network or of other demos; somebody else at work in the run folder.
        NonFiniteError: NaN in the weights.
    """
    with run.lock():
        return _Cloning(run, demos, progress, stopped).run_to_end(resume)


class _Cloning:
    """One call of `clone`."""

    def __init__(
        self,
        run: RunFolder,
        demos: Sequence[Demonstrations],
        progress: bool,
        stopped: Callable[[], bool],
    ) -> None:
        self.run, self.recipe, self.options = run, run.recipe, run.recipe.cloning
        self.progress, self.stopped = progress, stopped
        torch.manual_seed(self.recipe.seed)
        self.network = saved_policy.build(self.recipe)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            self.options.learning_rate,
            eps=1e-5,
            fused=True,
            weight_decay=self.options.weight_decay,
        )
        check_demonstrations(demos, self.recipe)
        self.train_games, self.val_games = [], []
        for source in demos:
            kept = Cache(source)
            for split, games in (("train", self.train_games), ("val", self.val_games)):
                games.append(EpisodeSubset(kept, source.split(split, self.options.validation)))
        self.weights = self._class_weights() if self.options.class_weights else None
        self.counters = Counters()
        self.rows: list[Epoch] = []

    def run_to_end(self, resume: bool) -> Counters:
        if resume and self.run.checkpoint.exists():
            self._load_checkpoint()
        else:
            zoo.start_from(self.recipe, self.network)
        options, began, before = self.options, time.perf_counter(), self.counters.seconds
        bar = tqdm(
            total=options.epochs,
            initial=self.counters.epoch,
            unit=" epochs",
            desc=self.recipe.name,
            disable=not self.progress,
        )
        with bar:
            while not self._done() and not self.stopped():
                number = self.counters.epoch + 1
                self._anneal(number)
                train_loss, train_accuracy = self._pass(number, bar)
                val_loss, val_accuracy = self._pass(None, bar)
                is_best = self.counters.best_loss is None or val_loss < self.counters.best_loss
                self.counters = replace(
                    self.counters,
                    epoch=number,
                    best_loss=val_loss if is_best else self.counters.best_loss,
                    since_best_loss=0 if is_best else self.counters.since_best_loss + 1,
                )
                score = None
                if options.eval_every and (number % options.eval_every == 0 or self._done()):
                    score = self._evaluate(bar)
                elif is_best and self.counters.best_return is None:
                    self._save_policy()
                self.counters = replace(self.counters, seconds=before + time.perf_counter() - began)
                losses = (train_loss, train_accuracy, val_loss, val_accuracy)
                self.rows.append(Epoch(number, self.counters.seconds, *losses, score))
                self._write()
                bar.update()
                bar.set_postfix_str(f"validation loss {val_loss:.3f}, accuracy {val_accuracy:.1%}")
        return self.counters

    def _done(self) -> bool:
        patience = self.options.patience
        tired = patience and self.counters.since_best_loss >= patience
        return self.counters.epoch >= self.options.epochs or bool(tired)

    def _anneal(self, epoch: int) -> None:
        rest = 1.0 - (epoch - 1) / self.options.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * rest

    def _pass(self, epoch: int | None, bar: tqdm) -> tuple[float, float]:
        """Learn from all training games, or with epoch None look at the others → mean loss a step
        and share of steps in which the likeliest action is the demos'.
        """
        options, learns = self.options, epoch is not None
        games = self.train_games if learns else self.val_games
        self.network.set_training_mode(learns)
        random = np.random.default_rng([self.recipe.seed, epoch]) if epoch is not None else None
        state: tuple[Tensor, ...] | None = None
        losses = hits = steps = 0.0
        for chunk in self._pieces(games, random):
            with torch.set_grad_enabled(learns):
                loss, value_loss, right, state = self._loss(chunk, state)
            count = float(chunk.mask.sum())
            if learns:
                self.optimizer.zero_grad()
                ((loss + self.recipe.ppo.vf_coef * value_loss) / count).backward()
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), options.max_grad_norm)
                self.optimizer.step()
                self._check_finite(epoch)
                bar.set_postfix_str(f"training loss {loss.item() / count:.3f}")
            losses, hits, steps = losses + loss.item(), hits + right, steps + count
        return losses / steps, hits / steps

    def _check_finite(self, epoch: int | None) -> None:
        bad = not_finite(self.network)
        if bad:
            raise NonFiniteError(
                f"{bad[0]} is no longer a number in epoch {epoch}; what was saved before is "
                "good; clone into another --run with a lower --cloning.learning-rate or "
                "--cloning.max-grad-norm"
            )

    def _pieces(
        self, games: Sequence[EpisodeSubset], random: np.random.Generator | None
    ) -> Iterator[Chunk]:
        gamma = self.recipe.ppo.gamma
        if random is None:  # one after another, each from its first step on, as in play
            return chunks(games, 1, WHOLE_GAMES, gamma)
        return chunks(games, self.options.sequences, self.options.sequence_length, gamma, random)

    def _loss(
        self, chunk: Chunk, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, Tensor, float, tuple[Tensor, ...]]:
        """→ sums over the steps of the actor's cross-entropy and the critic's squared error, the
        number of hits, the state without gradient.
        """
        streams = len(chunk.actions)
        if state is None:
            _, _, neurons = self.network.lstm_hidden_state_shape
            state = (torch.zeros(1, streams, neurons), torch.zeros(1, streams, neurons))
        obs = torch.from_numpy(chunk.obs).flatten(0, 1)
        starts = torch.from_numpy(chunk.resets).flatten().float()
        distribution, values, state = self.network.distribution_and_values(obs, state, starts)
        logits = cast(CategoricalDistribution, distribution).distribution.logits
        counts = torch.from_numpy(chunk.mask).flatten()
        logits, actions = logits[counts], torch.from_numpy(chunk.actions).flatten()[counts]
        loss = F.cross_entropy(logits, actions, self.weights, reduction="sum")
        returns = torch.from_numpy(chunk.returns).flatten()[counts]
        value_loss = F.mse_loss(values[:, 0][counts], returns, reduction="sum")
        right = float((logits.argmax(-1) == actions).sum())
        return loss, value_loss, right, tuple(part.detach() for part in state)

    def _class_weights(self) -> Tensor:
        """(A,): inversely to how often an action is taken, 1 on average over the steps."""
        counts = np.zeros(len(action_meanings(self.recipe.environment.game)))
        for source in self.train_games:
            for index in source.indices:
                np.add.at(counts, source.demos.read(index).actions, 1)
        taken = counts > 0
        weights = np.where(taken, counts.sum() / (taken.sum() * np.maximum(counts, 1)), 0.0)
        return torch.from_numpy(weights).float()

    def _evaluate(self, bar: tqdm) -> float:
        bar.set_postfix_str("playing whole games")
        score = evaluate(
            SavedPolicy(self.recipe, self.network),
            episodes=self.recipe.schedule.eval_episodes,
            protocol=self.recipe.environment.protocol,
            seed=EVALUATION_SEED,
        ).mean
        if self.counters.best_return is None or score >= self.counters.best_return:
            self.counters = replace(self.counters, best_return=score)
            self._save_policy()
        return score

    def _save_policy(self) -> None:
        saved_policy.save(self.run.policy, self.recipe, self.network)

    def _write(self) -> None:
        """What a crash must not lose: the checkpoint first, and with it the rows."""
        metadata = {
            "counters": json.dumps(asdict(self.counters)),
            "rows": json.dumps([asdict(row) for row in self.rows]),
            "games": json.dumps(self._games()),
        }
        tensors = learning_state(self.network, self.optimizer)
        save_tensors(self.run.checkpoint, tensors, metadata)
        self._show()

    def _games(self) -> dict[str, list[str]]:
        """The SHA-256 of the games of each split."""
        splits = {"train": self.train_games, "val": self.val_games}
        return {
            split: [
                source.demos.entries[index].sha256 for source in games for index in source.indices
            ]
            for split, games in splits.items()
        }

    def _show(self) -> None:
        with (
            atomic_write(self.run.path / saved_policy.CLONING) as temporary,
            temporary.open("w") as file,
        ):
            writer = csv.DictWriter(file, list(asdict(self.rows[0])))
            writer.writeheader()
            writer.writerows(map(asdict, self.rows))
        draw_cloning_curve([asdict(row) for row in self.rows], self.run.curve, self.recipe.name)

    def _load_checkpoint(self) -> None:
        path = self.run.checkpoint
        tensors, metadata = load_tensors(path)
        try:
            self.counters = Counters(**json.loads(metadata["counters"]))
            self.counters.check()
            self.rows = [Epoch(**row) for row in json.loads(metadata["rows"])]
            games = json.loads(metadata["games"])
            if not isinstance(games, dict) or {*games} != {"train", "val"}:
                raise ValueError(f"games are {games!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a checkpoint of a cloning ({error})") from None
        if games != self._games():
            raise UserError(
                f"{path} is of other demos: {len(games['train'])} games to learn from and "
                f"{len(games['val'])} held out; name the same, or another --run"
            )
        restore_learning(self.network, self.optimizer, tensors, path)
        self._show()


def check_demonstrations(demos: Sequence[Demonstrations], recipe: Recipe) -> None:
    """Refuse demos that a policy of this recipe cannot learn from.

    Raises:
        UserError: another game or protocol, frames of another size or number, or too few games to
            hold one out.
    """
    ours = recipe.environment
    wanted = ours.atari_protocol()
    for source in demos:
        there = source.provenance
        if there.game != ours.game:
            raise UserError(
                f"{source.path} holds demos of {there.game}, but the recipe is for {ours.game}"
            )
        for field in SAME:
            if getattr(there.protocol, field) != getattr(wanted, field):
                raise UserError(
                    f"{source.path} was recorded with {field}={getattr(there.protocol, field)}, "
                    f"but the recipe has {getattr(wanted, field)}; change its [environment], or "
                    "record others"
                )
    for split in ("train", "val"):
        if not any(source.split(split, recipe.cloning.validation) for source in demos):
            where = ", ".join(str(source.path) for source in demos)
            raise UserError(f"{where}: no game for split {split!r}; record at least two")


def best_return_of(run: RunFolder) -> float | None:
    """The best return that a cloning has been evaluated with."""
    _, metadata = load_tensors(run.checkpoint)
    return json.loads(metadata["counters"])["best_return"]
