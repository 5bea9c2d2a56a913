"""Training: a recipe in, a run folder with a saved policy out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import cast

from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from stable_baselines3.common.utils import LinearSchedule
from torch.utils.tensorboard import SummaryWriter

from ncp_agents.agents import zoo
from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import policy_kwargs
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.errors import NonFiniteError, UserError
from ncp_agents.evaluation.rollout import resumed_seed
from ncp_agents.sb3.callbacks import Periodically, ProgressBar, StopWhen
from ncp_agents.sb3.policies import CnnNcpPolicy
from ncp_agents.sb3.sequence_ppo import SequencePPO
from ncp_agents.training.callback import RunCallback
from ncp_agents.training.checkpoint import TrainingProgress, load_checkpoint
from ncp_agents.training.progress import ProgressCsv, read_progress
from ncp_agents.training.run_folder import RunFolder


def train(
    run: RunFolder,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[RunFolder], None] = lambda _: None,
) -> TrainingProgress:
    """Train until the recipe's steps are done.

    A resumed training continues with the network, the optimiser and the random states of the
    checkpoint, and with new episodes; without a checkpoint it starts again.

    Args:
        run: the folder, with the recipe.
        resume: from the checkpoint.
        should_stop: ends the training after the current update.
        on_progress: called whenever progress.csv has a new evaluation, and at the end.

    Raises:
        UserError: a checkpoint that is damaged or of another network, more steps done than the
            recipe's, a run folder locked by another process.
        NonFiniteError: NaN or infinity in loss or weights; the message names the last checkpoint.
    """
    recipe = run.recipe
    with run.lock(), closing(make_env(recipe)) as env:
        model = make_model(recipe, env)
        start = _start(run, model, resume)
        run.save_recipe()  # a resumption may have more steps
        outputs = _outputs(run, start.steps)
        model.set_logger(Logger(None, outputs))
        last = _last_evaluation(run)
        callback = RunCallback(run, start, outputs, last, should_stop, on_progress)
        bar = ProgressBar(recipe.steps, recipe.name)
        callbacks: list[BaseCallback] = [
            StopWhen(should_stop),
            bar,
            *_periodic(callback),
            callback,
        ]
        try:
            model.learn(
                recipe.steps - start.steps,
                CallbackList(callbacks),
                log_interval=1,
                reset_num_timesteps=start.steps == 0,
            )
        except NonFiniteError as error:
            saved = run.checkpoint if run.checkpoint.exists() else "none yet"
            raise NonFiniteError(
                f"{error}; last checkpoint: {saved}; train another --run with a lower "
                "--ppo.learning-rate or --ppo.max-grad-norm"
            ) from None
        finally:
            bar.close()
            model.logger.close()
        return callback.progress


def make_env(recipe: Recipe) -> AtariVecEnv:
    """Return the recipe's training environments."""
    environment = recipe.environment
    return AtariVecEnv(environment.game, environment.num_envs, environment.atari_protocol())


def make_model(recipe: Recipe, env: AtariVecEnv) -> SequencePPO:
    """Return the recipe's algorithm and network on environments.

    Raises:
        UserError: sizes that do not fit together.
    """
    ppo = recipe.ppo
    if recipe.start:
        ppo = replace(ppo, learning_rate=ppo.learning_rate * ppo.fine_tuning, ent_coef=0.0)
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
            policy_kwargs=policy_kwargs(recipe),
            seed=recipe.seed,
            device="cpu",
        )
    except ValueError as error:
        raise UserError(f"recipe {recipe.name!r}: {error}") from None


def _start(run: RunFolder, model: SequencePPO, resume: bool) -> TrainingProgress:
    """Load the checkpoint, or else the weights that the recipe starts from."""
    recipe, env = run.recipe, cast(AtariVecEnv, model.env)
    if not (resume and run.checkpoint.exists()):
        zoo.start_from(recipe, cast(CnnNcpPolicy, model.policy))
        return TrainingProgress()
    start = load_checkpoint(run.checkpoint, model, recipe.schedule.window)
    # The last rollout of a run that is done goes beyond its steps.
    if start.steps - recipe.ppo.n_steps * env.num_envs >= recipe.steps:
        raise UserError(f"{run.path} has done {start.steps:,} steps, more than {recipe.steps:,}")
    env.seed(resumed_seed(recipe.seed, start.steps))
    return start


def _outputs(run: RunFolder, steps: int) -> list[KVWriter]:
    """Open the logs, without the rows after `steps` that a killed training left."""
    board = TensorBoardOutputFormat(str(run.tensorboard))
    board.writer.close()
    board.writer = SummaryWriter(str(run.tensorboard), purge_step=steps + 1)
    return [ProgressCsv(run.progress, last_step=steps), board]


def _last_evaluation(run: RunFolder) -> int:
    rows = read_progress(run.progress)
    return max((int(row["steps"]) for row in rows if "eval_return" in row), default=0)


def _periodic(callback: RunCallback) -> list[BaseCallback]:
    """Return the schedule; a checkpoint does not wait for an evaluation."""
    schedule, steps = callback.run.recipe.schedule, callback.start.steps
    jobs: list[BaseCallback] = [
        Periodically(schedule.checkpoint_every, callback.checkpoint, last=steps)
    ]
    if schedule.eval_every:
        evaluations = callback.last_evaluation
        jobs.append(Periodically(schedule.eval_every, callback.evaluate, last=evaluations))
    return jobs
