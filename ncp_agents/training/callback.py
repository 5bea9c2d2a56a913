"""What happens to a run folder while stable-baselines3 trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from ncp_agents.agents import saved_policy
from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.evaluation.evaluate import evaluate
from ncp_agents.sb3.policies import CnnNcpPolicy
from ncp_agents.training.checkpoint import TrainingProgress, save_checkpoint
from ncp_agents.training.run_folder import RunFolder

EVALUATION_SEED = 1_000_000  # far from the seeds of training


class RunCallback(BaseCallback):
    """Keeps a run folder up to date: figures of each rollout, checkpoints, evaluations.

    Args:
        run: the folder.
        start: the progress before this call of `learn`.
        outputs: where evaluations are logged.
        last_evaluation: the steps of the last one, before this call of `learn`.
        should_stop: whether evaluations are skipped, because the training is to end.
        on_progress: called after each evaluation and at the end.
    """

    def __init__(
        self,
        run: RunFolder,
        start: TrainingProgress,
        outputs: list[KVWriter],
        last_evaluation: int,
        should_stop: Callable[[], bool],
        on_progress: Callable[[RunFolder], None],
    ) -> None:
        super().__init__()
        self.run, self.start, self.last_evaluation = run, start, last_evaluation
        self.should_stop, self.on_progress = should_stop, on_progress
        self.episodes, self.best_return = start.episodes, start.best_return
        # Not the model's own logger, whose values of the last update wait for its next row.
        self.evaluations = Logger(None, outputs)
        self.began = time.perf_counter()

    @property
    def progress(self) -> TrainingProgress:
        """Return the progress so far, over all resumptions."""
        return TrainingProgress(
            steps=self.model.num_timesteps,
            episodes=self.episodes,
            seconds=self.start.seconds + time.perf_counter() - self.began,
            best_return=self.best_return,
        )

    def checkpoint(self) -> None:
        """Save what a resumption continues from."""
        save_checkpoint(self.run.checkpoint, self.model, self.progress)

    def evaluate(self) -> None:
        """Score the policy on environments of its own, and save it if it is the best so far."""
        if self.should_stop():
            return
        recipe = self.run.recipe
        scores = evaluate(
            SavedPolicy(recipe, cast(CnnNcpPolicy, self.model.policy)),
            episodes=recipe.schedule.eval_episodes,
            protocol=recipe.environment.protocol,
            seed=EVALUATION_SEED,
        )
        self.evaluations.record("time/total_timesteps", self.model.num_timesteps)
        self.evaluations.record("time/seconds", self.progress.seconds)
        self.evaluations.record("eval/return", scores.mean)
        self.evaluations.record("eval/length", scores.mean_length)
        self.evaluations.dump(self.model.num_timesteps)
        self.on_progress(self.run)
        if self.best_return is None or scores.mean >= self.best_return:
            self.best_return = scores.mean
            self._save_policy()
        self.checkpoint()  # a kill must not lose the evaluation

    def _save_policy(self) -> None:
        saved_policy.save(self.run.policy, self.run.recipe, cast(CnnNcpPolicy, self.model.policy))

    def _on_step(self) -> bool:
        self.episodes += sum("episode" in info for info in self.locals["infos"])
        return True

    def _on_rollout_end(self) -> None:
        progress = self.progress
        steps, seconds = progress.steps - self.start.steps, progress.seconds - self.start.seconds
        self.logger.record("time/seconds", progress.seconds)
        self.logger.record("time/steps_per_second", steps / seconds)
        self.logger.record("time/episodes", progress.episodes)
        # The logger's values of the last update are still there: PPO records the loss, -entropy.
        if "train/entropy_loss" in self.logger.name_to_value:
            self.logger.record("train/entropy", -self.logger.name_to_value["train/entropy_loss"])

    def _on_training_end(self) -> None:
        if self.run.recipe.schedule.eval_every and self.last_evaluation < self.model.num_timesteps:
            self.evaluate()
        if self.best_return is None:
            self._save_policy()
        self.checkpoint()
        self.on_progress(self.run)
