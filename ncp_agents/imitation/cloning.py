"""Behaviour cloning: demos and a recipe in, a saved recurrent policy out.

The critic is trained jointly, on the discounted returns of the demos: PPO can continue from the
clone at once, and the encoder learns faster.

A run has its own folder, which survives a crash at any moment:

    runs/pong-cfc-clone-seed1/
      recipe.toml              as resolved
      cloning.csv              a row per epoch
      checkpoint.safetensors   what `--resume` continues from
      policy/                  the best policy so far, as a saved policy
      curve.png                loss and accuracy over the epochs, and returns
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tqdm import tqdm

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.agents.recipe import Cloning, Recipe
from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.datasets.cache import Cache
from ncp_agents.datasets.demonstrations import Demonstrations
from ncp_agents.datasets.sequences import EpisodeSubset
from ncp_agents.envs.games import action_meanings
from ncp_agents.errors import UserError
from ncp_agents.evaluation.evaluate import evaluate
from ncp_agents.imitation.cloning_checkpoint import (
    CloningProgress,
    load_checkpoint,
    save_checkpoint,
)
from ncp_agents.imitation.cloning_csv import Epoch, read_epochs, write_epochs
from ncp_agents.imitation.learner import Learner, class_weights
from ncp_agents.training.run_folder import RunFolder

EVALUATION_SEED = 2_000_000  # far from the seeds of demos
SAME_FIELDS = ("frame_stack", "frame_size", "frame_skip", "full_action_space", "sticky_actions")
"""Fields of the protocol that demos and recipe must have in common."""


def clone(
    run: RunFolder,
    demos: Sequence[Demonstrations],
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[RunFolder], None] = lambda _: None,
) -> CloningProgress:
    """Clone until the recipe's epochs are done, or the validation loss no longer decreases.

    Args:
        run: the folder, with the recipe.
        demos: whose episodes are split into training and validation.
        resume: from the checkpoint.
        should_stop: ends the cloning after the current epoch.
        on_progress: called whenever cloning.csv has a new row, and at the end.

    Raises:
        UserError: as `check_demonstrations`; a damaged file; a checkpoint that is damaged, of
            another network or of other demos; a run folder locked by another process.
        NonFiniteError: NaN or infinity in the weights.
    """
    check_demonstrations(demos, run.recipe)
    with run.lock():
        return _clone(run, demos, resume, should_stop, on_progress)


def _clone(
    run: RunFolder,
    demos: Sequence[Demonstrations],
    resume: bool,
    should_stop: Callable[[], bool],
    on_progress: Callable[[RunFolder], None],
) -> CloningProgress:
    recipe, options = run.recipe, run.recipe.cloning
    cached = [(Cache(source), source) for source in demos]
    splits = {
        split: [
            EpisodeSubset(cache, source.split(split, options.validation))
            for cache, source in cached
        ]
        for split in ("train", "val")
    }
    train, val = splits.values()
    hashes = {
        split: [
            source.entries[index].sha256
            for source in demos
            for index in source.split(split, options.validation)
        ]
        for split in splits
    }
    actions = len(action_meanings(recipe.environment.game))
    learner = Learner(recipe, class_weights(train, actions) if options.class_weights else None)
    network, optimizer = learner.network, learner.optimizer
    now = CloningProgress()
    if resume and run.checkpoint.exists():
        now = load_checkpoint(run.checkpoint, network, optimizer, hashes)
    else:
        zoo.start_from(recipe, network)
    rows = [row for row in read_epochs(run.cloning) if row.epoch <= now.epoch]
    began = time.perf_counter() - now.seconds
    with tqdm(
        total=options.epochs,
        initial=now.epoch,
        unit=" epochs",
        desc=recipe.name,
        disable=None,
    ) as bar:
        while not _is_done(now, options) and not should_stop():
            epoch = now.epoch + 1
            train_loss, train_accuracy = learner.train(train, epoch, bar)
            val_loss, val_accuracy = learner.validate(val)
            is_best = now.best_loss is None or val_loss < now.best_loss
            now = replace(now, epoch=epoch, since_best_loss=now.since_best_loss + 1)
            if is_best:
                now = replace(now, best_loss=val_loss, since_best_loss=0)
            score = None
            if options.eval_every and (epoch % options.eval_every == 0 or _is_done(now, options)):
                bar.set_postfix_str("evaluating")
                score = _evaluate(SavedPolicy(recipe, network))
                is_best = now.best_return is None or score >= now.best_return
                now = replace(now, best_return=score if is_best else now.best_return)
            elif now.best_return is not None:  # from here on, returns decide
                is_best = False
            if is_best:
                saved_policy.save(run.policy, recipe, network)
            now = replace(now, seconds=time.perf_counter() - began)
            rows.append(
                Epoch(epoch, now.seconds, train_loss, train_accuracy, val_loss, val_accuracy, score)
            )
            write_epochs(run.cloning, rows)
            save_checkpoint(run.checkpoint, network, optimizer, now, hashes)
            on_progress(run)
            bar.update()
            bar.set_postfix_str(f"validation loss {val_loss:.3f}, accuracy {val_accuracy:.1%}")
    on_progress(run)
    return now


def _is_done(progress: CloningProgress, options: Cloning) -> bool:
    without_gain = 0 < options.patience <= progress.since_best_loss
    return progress.epoch >= options.epochs or without_gain


def _evaluate(policy: SavedPolicy) -> float:
    """Return the mean return of whole episodes."""
    return evaluate(
        policy,
        episodes=policy.recipe.schedule.eval_episodes,
        protocol=policy.recipe.environment.protocol,
        seed=EVALUATION_SEED,
    ).mean


def check_demonstrations(demos: Sequence[Demonstrations], recipe: Recipe) -> None:
    """Refuse demos that a policy of this recipe cannot be cloned from.

    Raises:
        UserError: another game or protocol, frames of another size or number, or too few episodes
            for a validation split.
    """
    game, wanted = recipe.environment.game, recipe.environment.atari_protocol()
    for source in demos:
        there = source.provenance
        if there.game != game:
            raise UserError(f"{source.path} has demos of {there.game}, expected {game}")
        for field in SAME_FIELDS:
            recorded, expected = getattr(there.protocol, field), getattr(wanted, field)
            if recorded != expected:
                raise UserError(
                    f"{source.path} was recorded with {field}={recorded}, expected {expected}; "
                    "change the recipe's [environment], or record others"
                )
    for split in ("train", "val"):
        if not any(source.split(split, recipe.cloning.validation) for source in demos):
            where = ", ".join(str(source.path) for source in demos)
            raise UserError(f"{where}: no episode for split {split!r}; record at least two")
