"""How fast a Pong agent trains, and what bounds it.

    python scripts/benchmarks/throughput.py                  # everything, some 6 minutes
    python scripts/benchmarks/throughput.py --only parts     # each part alone, 1 minute
    python scripts/benchmarks/throughput.py --seconds 60     # for a quiet figure

Three comparisons, in one run and taking turns (A B A B), so that what else the machine does
hits both sides; a ratio is the median over the turns.

- recipe: `policies/pong-cfc/recipe.toml` as it is, against sb3-contrib's RecurrentPPO with
  `CnnLstmPolicy` as rl-zoo3 trains Atari (hyperparams/ppo_lstm.yml: AtariWrapper without
  life loss, 4 stacked frames, 8 environments of 128 steps, minibatches of 256, 4 epochs, 128
  LSTM cells, none for the critic). What either gives.
- same: the same encoder (`NatureCNN`, one frame) and the same PPO settings on both sides, so what
  is left is environment, circuit against LSTM, and sequences against padding.
- parts: each part alone, and how a training iteration of the recipe divides among them. A limit is
  what the arithmetic takes at the speeds of matrix product and sigmoid measured in the same run,
  or, for environments, what they reach alone with nothing to learn.

Findings, on 2 cores with AVX-512: the recipe trains 1,410 steps/s, 7.1 times rl-zoo3's 194;
with the same `NatureCNN` on both sides it is 358 against 220, 1.7 times, because the encoder then
takes most of the time. The environments alone run 4,900 steps/s; the compact encoder, most of it in
its compiled kernel, learns from 15,700 frames/s, 60 % of what its arithmetic allows, and the
circuit from 184,000 steps/s, 9 %: what is left there are the many small operations of torch around
it. In a rollout more than one thread of torch is slower, because its workers then wait on the cores
that the emulators need; learning takes them all.

A step is one decision in one environment, 4 frames of the game. Learning included: a figure counts
steps that were played and trained on.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal, cast

import ale_py
import gymnasium
import numpy as np
import torch
import tyro
from _limits import both_ways, floor, machine_speed, operations, percent, rate
from _stopwatch import Stopwatch, envs
from rich.console import Console
from rich.table import Table
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from torch import nn
from tqdm import tqdm

from ncp_agents.agents.recipe import PPO, Environment, PolicyRecipe, Recipe, read_recipe
from ncp_agents.agents.saved_policy import build, observation_space
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.sb3 import SequencePPO
from ncp_agents.sb3.encoders import ENCODERS
from ncp_agents.sb3.policies import CnnNcpPolicy
from ncp_agents.torch.threads import use_threads
from ncp_agents.training.train import make_model

RECIPE = Path(__file__).parents[2] / "policies" / "pong-cfc" / "recipe.toml"
BATCH = 256  # frames, or 2 sequences of 128 steps: the minibatch of both sides


@dataclass(frozen=True)
class Options:
    """How fast does a Pong agent train, and what bounds it?"""

    only: Literal["recipe", "same", "parts"] | None = None  # one of the three comparisons
    seconds: float = 20.0  # of training a turn
    turns: int = 3  # of each side
    threads: int = 0  # of torch; 0 takes one a core
    recipe: Path = RECIPE
    quick: bool = False  # tiny sizes: shows that it runs, measures nothing


# Training as a whole


def ours(recipe: Recipe) -> SequencePPO:
    environment = recipe.environment
    protocol = environment.atari_protocol()
    env = AtariVecEnv(environment.game, environment.num_envs, protocol, seed=recipe.seed)
    return make_model(recipe, env)


def stock(frame_stack: int, num_envs: int, n_steps: int, batch_size: int) -> RecurrentPPO:
    """rl-zoo3's, at the values its schedules start from."""
    return RecurrentPPO(
        "CnnLstmPolicy",
        stock_envs(num_envs, frame_stack),
        learning_rate=2.5e-4,
        n_steps=n_steps,
        batch_size=batch_size,
        n_epochs=4,
        clip_range=0.1,
        vf_coef=0.5,
        ent_coef=0.01,
        policy_kwargs={"enable_critic_lstm": False, "lstm_hidden_size": 128},
        seed=1,
        device="cpu",
    )


def stock_envs(num_envs: int, frame_stack: int = 1) -> VecEnv:
    gymnasium.register_envs(ale_py)
    wrapper = {"terminal_on_life_loss": False}
    env = make_atari_env("PongNoFrameskip-v4", num_envs, seed=1, wrapper_kwargs=wrapper)
    return VecFrameStack(env, frame_stack) if frame_stack > 1 else env


class WholeIterations(BaseCallback):
    """Stops at the first iteration's end after `seconds`, and counts what was trained."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.limit = seconds
        self.iterations = self.steps = -1
        self.seconds = 0.0

    def _on_rollout_start(self) -> None:
        if self.iterations < 0:
            self.start, self.first = time.perf_counter(), self.num_timesteps
        self.seconds = time.perf_counter() - self.start
        self.steps = self.num_timesteps - self.first
        self.iterations += 1

    def _on_step(self) -> bool:
        return self.iterations < 1 or self.seconds < self.limit


def train(model: RecurrentPPO, seconds: float) -> WholeIterations:
    callback = WholeIterations(seconds)
    model.learn(10**9, callback=callback, reset_num_timesteps=False)
    return callback


def compare(
    contenders: dict[str, Callable[[], RecurrentPPO]],
    seconds: float,
    turns: int,
    title: str,
) -> Table:
    """The first, and how many times as fast as each other it trains."""
    models = {name: make() for name, make in contenders.items()}
    speeds: dict[str, list[float]] = defaultdict(list)
    with tqdm(total=(turns + 1) * len(models), desc=title, leave=False) as bar:
        for turn in range(turns + 1):
            for name, model in models.items():
                bar.set_postfix_str(name)
                result = train(model, seconds if turn else 0.0)
                if turn:  # the one before warms up
                    speeds[name].append(result.steps / result.seconds)
                bar.update()
    table = Table("agent", "parameters", "steps/s", "range", "times as fast", title=title)
    first = speeds[next(iter(models))]
    for name, model in models.items():
        ratios = [mine / other for mine, other in zip(first, speeds[name], strict=True)]
        table.add_row(
            name,
            f"{sum(p.numel() for p in model.policy.parameters()):,}",
            f"{median(speeds[name]):,.0f}",
            f"{min(speeds[name]):,.0f}–{max(speeds[name]):,.0f}",
            "" if speeds[name] is first else f"{median(ratios):.1f}",
        )
        envs(model).close()
    return table


# Each part alone


def environment_speed(env: VecEnv, seconds: float) -> float:
    """Steps a second with random actions."""
    env.reset()
    rng = np.random.default_rng(0)
    actions = rng.integers(0, env.action_space.n, (64, env.num_envs))  # pyright: ignore

    def play() -> None:
        for row in actions:
            env.step(row)

    return rate(play, actions.size, seconds)


def encoder_row(name: str, batch: int, peak: float, seconds: float) -> list[str]:
    space = observation_space(Environment().atari_protocol())
    encoder = ENCODERS[name](space)
    frames = torch.rand(batch, *space.shape)
    with torch.no_grad():
        forward = rate(lambda: encoder(frames), batch, seconds)
    both = rate(both_ways(lambda: encoder(frames)), batch, seconds)
    limit = peak * batch / operations(both_ways(lambda: encoder(frames)))
    return [
        f"encoder {name}",
        f"{forward:,.0f}",
        f"{both:,.0f}",
        f"{limit:,.0f}",
        percent(both, limit),
    ]


def circuit_row(
    name: str, layer: nn.Module, limit: float | None, batch: tuple[int, int, int], seconds: float
) -> list[str]:
    """batch (B, T, I)."""
    sequences = torch.randn(*batch, requires_grad=True)
    steps = batch[0] * batch[1]
    with torch.no_grad():
        forward = rate(lambda: layer(sequences), steps, seconds)
    both = rate(both_ways(lambda: layer(sequences)[0]), steps, seconds)
    limits = [f"{limit:,.0f}", percent(both, limit)] if limit else ["", ""]
    return [name, f"{forward:,.0f}", f"{both:,.0f}", *limits]


def parts_alone(recipe: Recipe, seconds: float) -> Table:
    peak, sigmoids = machine_speed(seconds)
    table = Table(
        "part", "steps/s forward", "with backward", "limit", "of limit",
        title="Each part alone",
        caption=f"{peak / 1e9:.0f} GFLOP/s in matrix products, "
        f"{sigmoids / 1e9:.2f} G sigmoids/s, {torch.get_num_threads()} threads",
    )  # fmt: skip
    environment = recipe.environment
    rows: list[Callable[[], list[str]]] = []
    for count in sorted({8, environment.num_envs}):
        rows.append(lambda count=count: environment_row("AtariVecEnv", count, seconds))
    rows.append(lambda: environment_row("DummyVecEnv", 8, seconds))
    for name in ("compact", "nature"):
        rows.append(lambda name=name: encoder_row(name, BATCH, peak, seconds))
    circuit = build(recipe).circuit
    length = recipe.ppo.sequence_length
    batch = (max(BATCH // length, 1), length, circuit.input_size)
    limit = 1 / floor(circuit.rnn_cell, 1, peak, sigmoids)[1] if not circuit.use_mixed else None
    rows.append(lambda: circuit_row("circuit of the recipe", circuit, limit, batch, seconds))
    lstm = nn.LSTM(circuit.input_size, circuit.state_size, batch_first=True)
    name = f"nn.LSTM({circuit.state_size})"
    rows.append(lambda: circuit_row(name, lstm, None, batch, seconds))
    for row in tqdm(rows, desc="parts", leave=False):
        table.add_row(*row())
    return table


def environment_row(kind: str, count: int, seconds: float) -> list[str]:
    env = AtariVecEnv("pong", count, seed=1) if kind == "AtariVecEnv" else stock_envs(count)
    speed = environment_speed(env, seconds)
    env.close()
    return [f"{kind}, {count} environments", f"{speed:,.0f}", "", "", ""]


# Where an iteration goes


def breakdown(recipe: Recipe, seconds: float) -> Table:
    """Milliseconds of an iteration beside what its parts would take at their limits."""
    model = ours(recipe)
    train(model, 0.0)
    stopwatch = Stopwatch(model)
    result = train(model, seconds)
    spent = {name: time / result.iterations for name, time in stopwatch.parts().items()}
    envs(model).close()

    environment, ppo = recipe.environment, recipe.ppo
    short = min(seconds, 3.0)
    peak, sigmoids = machine_speed(short)
    steps = environment.num_envs * ppo.n_steps
    policy = cast(CnnNcpPolicy, model.policy)
    circuit, encoder = policy.circuit, policy.features_extractor
    env = AtariVecEnv(environment.game, environment.num_envs, environment.atari_protocol())
    limits = {"rollout: environment": steps / environment_speed(env, short)}
    env.close()
    frame = torch.rand(1, *observation_space(environment.atari_protocol()).shape)
    forward = operations(lambda: encoder(frame))
    both = operations(both_ways(lambda: encoder(frame)))
    limits["rollout: encoder"] = steps * forward / peak
    limits["train: encoder"] = ppo.n_epochs * steps * both / peak
    if not circuit.use_mixed:
        forward, both = floor(circuit.rnn_cell, steps, peak, sigmoids)
        limits["rollout: circuit"], limits["train: circuit"] = forward, ppo.n_epochs * both

    whole = sum(spent.values())
    table = Table(
        "part", "ms", "fraction", "limit, ms", "of limit",
        title=f"One iteration of {recipe.name}: {steps:,} steps, {steps / whole:,.0f} steps/s",
    )  # fmt: skip
    for name, mine in spent.items():
        limit = limits.get(name)
        table.add_row(
            name,
            f"{1e3 * mine:,.0f}",
            f"{100 * mine / whole:.0f} %",
            f"{1e3 * limit:,.1f}" if limit else "",
            percent(limit, mine) if limit else "",
        )
    return table


def main() -> None:
    options = tyro.cli(Options)
    use_threads(options.threads)
    seconds, turns = (0.0, 1) if options.quick else (options.seconds, options.turns)
    recipe = read_recipe(options.recipe)
    num_envs, n_steps, batch_size = (2, 16, 32) if options.quick else (8, 128, BATCH)
    if options.quick:
        recipe = replace(
            recipe,
            environment=replace(recipe.environment, num_envs=num_envs),
            ppo=replace(recipe.ppo, n_steps=16, sequence_length=16, batch_size=16),
        )
    same = replace(
        recipe,
        environment=replace(recipe.environment, num_envs=num_envs, frame_stack=1),
        policy=PolicyRecipe(encoder="nature", features=512),
        ppo=PPO(
            learning_rate=2.5e-4, n_steps=n_steps, sequence_length=n_steps, batch_size=batch_size
        ),
    )
    console = Console()
    if options.only in (None, "recipe"):
        contenders = {
            recipe.name: lambda: ours(recipe),
            "CnnLstmPolicy, rl-zoo3": lambda: stock(4, num_envs, n_steps, batch_size),
        }
        console.print(compare(contenders, seconds, turns, "Training Pong"))
    if options.only in (None, "same"):
        contenders = {
            "CnnNcpPolicy, SequencePPO": lambda: ours(same),
            "CnnLstmPolicy, RecurrentPPO": lambda: stock(1, num_envs, n_steps, batch_size),
        }
        title = "Same encoder (NatureCNN on one frame), same PPO settings"
        console.print(compare(contenders, seconds, turns, title))
    if options.only in (None, "parts"):
        console.print(parts_alone(recipe, min(seconds, 3.0)))
        console.print(breakdown(recipe, seconds))


if __name__ == "__main__":
    main()
