"""What happens around a training: signals, periodic jobs, a progress bar, a look at the numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from ncp_agents.errors import NonFiniteError
from ncp_agents.sb3.nonfinite import not_finite


class StopWhen(BaseCallback):
    """Ends the training after the update in which `should_stop` becomes true: what has been
    played is learnt, and no step counts that is not.
    """

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        super().__init__()
        self.should_stop = should_stop

    def _on_rollout_start(self) -> None:
        self._learnt, self._ends = self.model.num_timesteps, self.should_stop()

    def _on_step(self) -> bool:
        if self._ends:  # stable-baselines3 has counted the one step that it takes first
            self.model.num_timesteps = self._learnt
        return not self._ends


class Periodically(BaseCallback):
    """Calls `job` between two rollouts, at the first chance after every multiple of `every` steps;
    the last time, before this training, was after `last` steps.
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


class StopOnNonFinite(BaseCallback):
    """Raises `NonFiniteError` after an update that left a loss or a weight that is no number."""

    def _on_rollout_start(self) -> None:
        self._check()

    def _on_training_end(self) -> None:
        self._check()

    def _check(self) -> None:
        values = self.logger.name_to_value
        bad = [k for k, v in values.items() if k.endswith("loss") and not np.isfinite(v)]
        bad += not_finite(self.model.policy)
        if bad:
            raise NonFiniteError(
                f"{bad[0]} is no longer a number after {self.num_timesteps:,} steps"
            )

    def _on_step(self) -> bool:
        return True


class ProgressBar(BaseCallback):
    """A bar over all steps, with the mean return of the last games and steps a second."""

    def __init__(self, total: int, label: str, disable: bool = False) -> None:
        super().__init__()
        self.total, self.label, self.disable = total, label, disable

    def _on_training_start(self) -> None:
        self._bar = tqdm(
            total=self.total,
            initial=self.num_timesteps,
            desc=self.label,
            unit=" steps",
            unit_scale=True,
            disable=self.disable,
            smoothing=0.05,
        )

    def _on_step(self) -> bool:
        self._bar.update(self.num_timesteps - self._bar.n)
        return True

    def _on_rollout_end(self) -> None:
        games = self.model.ep_info_buffer
        if games:
            self._bar.set_postfix_str(f"return {np.mean([g['r'] for g in games]):.1f}")

    def close(self) -> None:
        if hasattr(self, "_bar"):
            self._bar.close()
