"""Training: a recipe in, a run folder with a saved policy out."""

from __future__ import annotations

import dataclasses
import signal
import time
from pathlib import Path
from typing import cast

from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.utils import LinearSchedule
from torch.utils.tensorboard import SummaryWriter

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.agents.recipe import Recipe, read_recipe
from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.errors import NonFiniteError, UserError
from ncp_agents.evaluation.evaluate import evaluate
from ncp_agents.evaluation.rollout import resumed_seed
from ncp_agents.files import check_writable, copy_files
from ncp_agents.rendering.learning_curve import draw_curve
from ncp_agents.sb3.callbacks import (
    Periodically,
    ProgressBar,
    StopOnNonFinite,
    StopWhen,
)
from ncp_agents.sb3.policies import CnnNcpPolicy
from ncp_agents.sb3.sequence_ppo import SequencePPO
from ncp_agents.training.interrupts import Stop
from ncp_agents.training.progress import ProgressCsv, read_progress
from ncp_agents.training.run_folder import Counters, RunFolder

EVALUATION_SEED = 1_000_000  # far from the training seeds, so that the games are others


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    run: RunFolder
    counters: Counters
    stopped_by: signal.Signals | None = None


def make_model(recipe: Recipe, env: AtariVecEnv) -> SequencePPO:
    """The recipe's algorithm and network on environments.

    Raises:
        UserError: sizes that do not fit together.
    """
    ppo = recipe.ppo
    if recipe.start:
        ppo = dataclasses.replace(
            ppo, learning_rate=ppo.learning_rate * ppo.fine_tuning, ent_coef=0.0
        )
    rate = LinearSchedule(ppo.learning_rate, 0.0, 1.0) if ppo.anneal else ppo.learning_rate
    entropy = LinearSchedule(ppo.ent_coef, 0.0, ppo.ent_until) if ppo.anneal else ppo.ent_coef
    try:
        return SequencePPO(
            "CnnNcpPolicy",
            env,
            learning_rate=rate,
            n_steps=ppo.n_steps,
            batch_size=ppo.batch_size,
            n_epochs=ppo.n_epochs,
            gamma=ppo.gamma,
            gae_lambda=ppo.gae_lambda,
            clip_range=ppo.clip_range,
            ent_coef=entropy,
            vf_coef=ppo.vf_coef,
            max_grad_norm=ppo.max_grad_norm,
            target_kl=ppo.target_kl or None,
            sequence_length=ppo.sequence_length,
            critic_warmup=ppo.critic_warmup if recipe.start else 0,
            stats_window_size=recipe.schedule.window,
            policy_kwargs=saved_policy.policy_kwargs(recipe),
            seed=recipe.seed,
            device="cpu",
        )
    except ValueError as error:
        raise UserError(f"recipe {recipe.name!r}: {error}") from None


def train(run: RunFolder, *, resume: bool = False, progress: bool = True) -> Outcome:
    """Train until the recipe's steps are done, or until SIGINT or SIGTERM.

    Every step counts from the start of the run. On resumption the network, the optimiser and the
    random states are those of the checkpoint; the games start anew, from seeds not yet played.

    Raises:
        UserError: a checkpoint that is damaged or of another network, more steps done than the
            recipe's, somebody else at work in the run folder.
        NonFiniteError: NaN in loss or weights; the message names the last good checkpoint.
    """
    with run.lock():
        return _train(run, resume, progress)


def _train(run: RunFolder, resume: bool, progress: bool) -> Outcome:
    recipe = run.recipe
    env = AtariVecEnv(
        recipe.environment.game,
        recipe.environment.num_envs,
        recipe.environment.atari_protocol(),
    )
    try:
        model = make_model(recipe, env)
        counters = Counters()
        # Before the first checkpoint a run starts again as it did.
        if not (resume and run.checkpoint.exists()):
            zoo.start_from(recipe, cast(CnnNcpPolicy, model.policy))
        else:
            model._setup_learn(0)  # makes the buffer of recent games
            model._last_obs = None
            counters = run.load_checkpoint(model)
            # The last rollout of a run that is done goes beyond its steps.
            if counters.steps - recipe.ppo.n_steps * env.num_envs >= recipe.steps:
                raise UserError(
                    f"{run.path} has done {counters.steps:,} steps, more than {recipe.steps:,}"
                )
        run.save_recipe()  # a resumption may have more steps
        if counters.steps:
            env.seed(resumed_seed(recipe.seed, counters.steps))
        return _Training(run, model, counters, progress).run_to_end()
    finally:
        env.close()


class _Training:
    """One call of `train`: the jobs around the algorithm, and the counters they share."""

    def __init__(
        self, run: RunFolder, model: SequencePPO, counters: Counters, progress: bool
    ) -> None:
        self.run, self.model, self.progress = run, model, progress
        self.start, self.began = counters, time.perf_counter()
        self.games = counters.games
        self.best_return = counters.best_return

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @property
    def network(self) -> CnnNcpPolicy:
        return cast(CnnNcpPolicy, self.model.policy)

    @property
    def counters(self) -> Counters:
        return Counters(
            steps=self.model.num_timesteps,
            updates=self.model._n_updates,
            games=self.games,
            seconds=self.start.seconds + time.perf_counter() - self.began,
            best_return=self.best_return,
        )

    def run_to_end(self) -> Outcome:
        with Stop() as stop:
            self._learn(stop)
        return Outcome(self.run, self.counters, stop.received)

    def _learn(self, stop: Stop) -> None:
        done, total = self.start.steps, self.recipe.steps
        csv = ProgressCsv(self.run.progress, last_step=done)
        rows = read_progress(self.run.progress)
        evaluated = max((int(row["steps"]) for row in rows if "eval_return" in row), default=0)
        board = TensorBoardOutputFormat(str(self.run.tensorboard))
        board.writer.close()
        board.writer = SummaryWriter(str(self.run.tensorboard), purge_step=done + 1)
        self.model.set_logger(Logger(None, [csv, board]))
        self.evaluations = Logger(None, [csv, board])
        bar = ProgressBar(total, self.recipe.name, disable=not self.progress)
        schedule = self.recipe.schedule
        jobs: list[BaseCallback] = [StopWhen(stop), StopOnNonFinite(), _Record(self), bar]
        evaluate = lambda: None if stop.received else self.evaluate()  # noqa: E731
        if schedule.eval_every:
            jobs.append(Periodically(schedule.eval_every, evaluate, last=evaluated))
        jobs.append(Periodically(schedule.checkpoint_every, self.checkpoint, last=done))
        try:
            if total > done:
                self.model.learn(
                    total - done, CallbackList(jobs), log_interval=1, reset_num_timesteps=done == 0
                )
            due = schedule.eval_every and evaluated < self.model.num_timesteps
            self.finish(evaluate=bool(due) and stop.received is None)
        except NonFiniteError as error:
            last = (
                f"the last good checkpoint is {self.run.checkpoint}"
                if self.run.checkpoint.exists()
                else "there is no checkpoint yet"
            )
            error.args = (
                f"{error}; {last}; begin another --run with a lower --ppo.learning-rate or "
                "--ppo.max-grad-norm",
            )
            raise
        finally:
            bar.close()
            self.model.logger.close()

    def finish(self, evaluate: bool) -> None:
        if evaluate:
            self.evaluate()
        if self.best_return is None:
            self.save_policy()
        self.checkpoint()
        self.draw_curve()

    def checkpoint(self) -> None:
        self.run.save_checkpoint(self.model, self.counters)

    def draw_curve(self) -> None:
        draw_curve(self.run.progress, self.run.curve, self.recipe)

    def save_policy(self) -> None:
        saved_policy.save(self.run.policy, self.recipe, self.network)

    def evaluate(self) -> None:
        """Play whole games on separate environments; keep the policy if it is the best so far, and
        what came out, whatever happens next.
        """
        schedule = self.recipe.schedule
        scores = evaluate(
            SavedPolicy(self.recipe, self.network),
            episodes=schedule.eval_episodes,
            protocol=self.recipe.environment.protocol,
            seed=EVALUATION_SEED,
        )
        counters = self.counters
        self.evaluations.record("time/total_timesteps", counters.steps)
        self.evaluations.record("time/seconds", counters.seconds)
        self.evaluations.record("eval/return", scores.mean)
        self.evaluations.record("eval/length", scores.mean_length)
        self.evaluations.dump(counters.steps)
        self.draw_curve()
        if self.best_return is None or scores.mean >= self.best_return:
            self.best_return = scores.mean
            self.save_policy()
        self.checkpoint()


class _Record(BaseCallback):
    """The figures of a rollout that stable-baselines3 does not log itself."""

    def __init__(self, training: _Training) -> None:
        super().__init__()
        self.training = training

    def _on_step(self) -> bool:
        self.training.games += sum("episode" in info for info in self.locals["infos"])
        return True

    def _on_rollout_end(self) -> None:
        counters, start = self.training.counters, self.training.start
        seconds = counters.seconds - start.seconds
        self.logger.record("time/seconds", counters.seconds)
        self.logger.record("time/steps_per_second", (counters.steps - start.steps) / seconds)
        self.logger.record("time/games", counters.games)
        # The logger's values of the last update are still there: PPO records the loss, -entropy.
        if "train/entropy_loss" in self.logger.name_to_value:
            self.logger.record("train/entropy", -self.logger.name_to_value["train/entropy_loss"])


def default_run(recipe: Recipe, runs: Path = Path("runs"), how: str | None = None) -> Path:
    """The run folder of a recipe where none is named.

    Args:
        how: says beside the name how the policy is trained; None says "continued" where it starts
            from another.
    """
    how = how or ("continued" if recipe.start else None)
    return runs / "-".join(filter(None, [recipe.name, how, f"seed{recipe.seed}"]))


def check_destination(destination: Path, recipe: Recipe) -> None:
    """Find out before the work whether its policy can be copied to a folder.

    Raises:
        UserError: it cannot be written to, or holds a policy for another game.
    """
    if (destination / saved_policy.RECIPE).is_file():
        there = read_recipe(destination / saved_policy.RECIPE).environment.game
        if there != recipe.environment.game:
            raise UserError(
                f"{destination} holds a policy for {there}; name another: --save FOLDER"
            )
    check_writable(destination / saved_policy.RECIPE, "--save FOLDER")


def copy_policy(run: RunFolder, destination: Path) -> None:
    """Copy a run's policy, and how it learnt, to a folder of saved policies, such as policies/."""
    learnt = [run.progress, run.path / saved_policy.CLONING, run.curve]
    for path in learnt:
        if not path.exists():  # how another policy learnt that was here
            (destination / path.name).unlink(missing_ok=True)
    copy_files([*saved_policy.files(run.policy), *filter(Path.exists, learnt)], destination)
