"""Callbacks of stable-baselines3: the end of a training, periodic jobs, a progress bar."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm


class StopWhen(BaseCallback):
    """Ends the training after the update in which `should_stop` becomes true.

    So every step that counts has been trained on.
    """

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        super().__init__()
        self.should_stop = should_stop

    def _on_rollout_start(self) -> None:
        self._trained, self._ends = self.model.num_timesteps, self.should_stop()

    def _on_step(self) -> bool:
        if self._ends:  # stable-baselines3 has counted the one step that it takes first
            self.model.num_timesteps = self._trained
        return not self._ends


class Periodically(BaseCallback):
    """Calls `job` between two rollouts, after every multiple of `every` steps.

    Args:
        every: steps.
        job: called at the first chance.
        last: steps at the last call, before this training.
    """

    def __init__(self, every: int, job: Callable[[], None], last: int = 0) -> None:
        super().__init__()
        self.every, self.job, self.last = every, job, last

    def _on_rollout_start(self) -> None:
        if self.num_timesteps // self.every > self.last // self.every:
            self.last = self.num_timesteps
            self.job()

    def _on_step(self) -> bool:
        return True


class ProgressBar(BaseCallback):
    """A bar over all steps, with the mean return of the last episodes and steps/s."""

    def __init__(self, total: int, label: str) -> None:
        super().__init__()
        self.total, self.label = total, label

    def _on_training_start(self) -> None:
        self._bar = tqdm(
            total=self.total,
            initial=self.num_timesteps,
            desc=self.label,
            unit=" steps",
            unit_scale=True,
            disable=None,
            smoothing=0.05,
        )

    def _on_step(self) -> bool:
        self._bar.update(self.num_timesteps - self._bar.n)
        return True

    def _on_rollout_end(self) -> None:
        episodes = self.model.ep_info_buffer
        if episodes:
            mean = np.mean([episode["r"] for episode in episodes])
            self._bar.set_postfix_str(f"return {mean:.1f}")

    def close(self) -> None:
        """Close the bar, if the training has begun."""
        if hasattr(self, "_bar"):
            self._bar.close()
