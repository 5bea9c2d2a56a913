"""Everything needed to train a policy, as data: frozen dataclasses, and TOML on disk.

The fields are also the options of the command line: `ppo.learning_rate` here is
`--ppo.learning-rate` there, with the comment behind it as its help.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
import tyro

from ncp_agents import registry
from ncp_agents.envs.games import normalise_game
from ncp_agents.envs.protocol import AtariProtocol, protocol
from ncp_agents.errors import UserError
from ncp_agents.layers.checks import Init, Mode


@dataclass(frozen=True)
class Environment:
    """The games played side by side."""

    game: str = "pong"  # any spelling: pong, ALE/Pong-v5, PongNoFrameskip-v4
    protocol: Literal["v4", "v5"] = "v4"  # v5 has sticky actions (0.25)
    num_envs: int = 16  # games played side by side
    frame_stack: int = 1  # frames the agent sees at once; a recurrent policy needs 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "game", normalise_game(self.game))
        _at_least(1, num_envs=self.num_envs, frame_stack=self.frame_stack)

    def atari_protocol(self) -> AtariProtocol:
        return protocol(self.protocol, frame_stack=self.frame_stack)


@dataclass(frozen=True)
class Circuit:
    """The recurrent part: neurons on a wiring."""

    cell: Literal["cfc", "ltc", "lstm"] = "cfc"  # neuron model; lstm is torch's, to compare with
    wiring: Literal["AutoNCP", "FullyConnected", "Random", "dense"] = "AutoNCP"  # who reads whom
    units: int = 64  # neurons in all
    motor_neurons: int = 16  # neurons that the actor reads; all of them in a dense circuit
    sparsity: float = 0.5  # share of synapses left out, 0.0 <= s < 1.0
    wiring_seed: int = 22222  # draws the wiring's synapses
    mode: Mode = "default"  # form of the CfC equation
    init: Init = "balanced"  # CfC weights at the start
    mixed_memory: bool = False  # a memory cell in front of the neurons
    mask_time_gates: bool = False  # CfC's time gates as sparse as the wiring

    def __post_init__(self) -> None:
        _at_least(1, units=self.units, motor_neurons=self.motor_neurons)
        if not 0.0 <= self.sparsity < 1.0:
            raise ValueError(f"sparsity is {self.sparsity}, expected 0.0 <= sparsity < 1.0")
        if self.cell == "lstm" and (self.wiring != "dense" or self.mixed_memory):
            raise ValueError(
                f"wiring is {self.wiring!r}, mixed_memory {self.mixed_memory}, expected 'dense' "
                "and no mixed memory with cell 'lstm'"
            )
        of_cfc = (self.mode, self.init, self.mask_time_gates)
        if self.cell != "cfc" and of_cfc != ("default", "balanced", False):
            raise ValueError(
                f"mode is {self.mode!r}, init {self.init!r}, mask_time_gates "
                f"{self.mask_time_gates}, expected the defaults: they concern cell 'cfc' only, not "
                f"{self.cell!r}"
            )
        if self.wiring in ("dense", "FullyConnected") and (
            self.mask_time_gates or self.sparsity not in (0.0, 0.5)
        ):
            raise ValueError(
                f"sparsity is {self.sparsity}, mask_time_gates {self.mask_time_gates}, expected "
                f"the defaults: wiring {self.wiring!r} leaves no synapse out"
            )

    def wiring_config(self) -> dict[str, Any] | int:
        """What `ncp_agents.sb3` makes the wiring from."""
        if self.wiring == "dense":
            return self.units
        config: dict[str, Any] = {"kind": self.wiring, "units": self.units}
        if self.wiring == "AutoNCP":
            return config | {
                "output_size": self.motor_neurons,
                "sparsity_level": self.sparsity,
                "seed": self.wiring_seed,
            }
        config["output_dim"] = self.motor_neurons
        if self.wiring == "Random":
            return config | {"sparsity_level": self.sparsity, "random_seed": self.wiring_seed}
        return config | {"erev_init_seed": self.wiring_seed}


@dataclass(frozen=True)
class Policy:
    """Encoder, circuit and heads."""

    encoder: Literal["compact", "deep", "nature"] = "compact"  # pixels to features
    features: int = 64  # size of the encoder's output
    critic: Literal["circuit+encoder", "circuit", "encoder"] = "circuit+encoder"  # what it reads
    memory: bool = True  # without it the circuit forgets before every step, to compare with

    def __post_init__(self) -> None:
        _at_least(1, features=self.features)


@dataclass(frozen=True)
class PPO:
    """Proximal policy optimisation on whole sequences (Schulman et al. 2017)."""

    learning_rate: float = 1e-3  # of Adam, at the start
    anneal: bool = True  # learning rate and entropy bonus fall linearly, the former to the end
    n_steps: int = 128  # steps a rollout in each environment
    sequence_length: int = 32  # steps a training sequence; divides n_steps
    batch_size: int = 256  # steps a minibatch: sequence_length times a number of sequences
    n_epochs: int = 4  # passes over each rollout
    gamma: float = 0.99  # discount a step
    gae_lambda: float = 0.95  # generalised advantage estimation, Schulman et al. 2016
    clip_range: float = 0.15  # of the probability ratio
    ent_coef: float = 0.01  # weight of the entropy bonus, at the start
    ent_until: float = 0.6  # share of the steps at which the entropy bonus has fallen to 0
    vf_coef: float = 0.5  # weight of the value loss
    max_grad_norm: float = 0.5  # gradients are scaled down to this norm
    target_kl: float = 0.0  # an update ends early beyond 1.5 times this KL divergence; 0 = never
    # Of a run --from a policy, which needs no entropy bonus:
    critic_warmup: int = 40_000  # steps in which only the critic learns
    fine_tuning: float = 0.3  # the learning rate is multiplied by this

    def __post_init__(self) -> None:
        _at_least(
            1,
            n_steps=self.n_steps,
            sequence_length=self.sequence_length,
            batch_size=self.batch_size,
            n_epochs=self.n_epochs,
        )
        _at_least(
            0,
            critic_warmup=self.critic_warmup,
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
            target_kl=self.target_kl,
        )
        for name in ("gamma", "gae_lambda"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0.0 to 1.0")
        if not 0.0 < self.ent_until <= 1.0:
            raise ValueError(f"ent_until is {self.ent_until}, expected 0.0 < share <= 1.0")
        _above_zero(
            learning_rate=self.learning_rate,
            clip_range=self.clip_range,
            max_grad_norm=self.max_grad_norm,
            fine_tuning=self.fine_tuning,
        )
        if self.n_steps % self.sequence_length:
            raise ValueError(
                f"sequence_length is {self.sequence_length}, expected a divisor of n_steps = "
                f"{self.n_steps}"
            )


@dataclass(frozen=True)
class Cloning:
    """Behaviour cloning of demos, by truncated back-propagation through whole games."""

    epochs: int = 40  # passes over the demos, at most
    learning_rate: float = 1e-3  # of Adam, at the start; falls to 0 with the epochs
    sequences: int = 16  # games learnt from side by side
    sequence_length: int = 16  # steps that gradients go back through; the state goes on
    max_grad_norm: float = 0.5  # gradients are scaled down to this norm
    weight_decay: float = 0.0  # of AdamW
    class_weights: bool = False  # rare actions count as much as frequent ones
    validation: float = 0.1  # share of the games held out
    eval_every: int = 10  # epochs between evaluations in whole games; 0 = never
    patience: int = 12  # epochs without a lower validation loss that end it; 0 = never
    dagger_games: int = 8  # the student's own games a round of DAgger
    dagger_epochs: int = 12  # passes over all demos a round of DAgger

    def __post_init__(self) -> None:
        _at_least(
            1,
            epochs=self.epochs,
            sequences=self.sequences,
            sequence_length=self.sequence_length,
            dagger_games=self.dagger_games,
            dagger_epochs=self.dagger_epochs,
        )
        _at_least(
            0, eval_every=self.eval_every, patience=self.patience, weight_decay=self.weight_decay
        )
        _above_zero(learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm)
        if not 0.0 < self.validation < 1.0:
            raise ValueError(f"validation is {self.validation}, expected 0.0 < share < 1.0")


@dataclass(frozen=True)
class Schedule:
    """What happens during training, besides training."""

    eval_every: int = 250_000  # steps between evaluations on separate environments; 0 = never
    eval_episodes: int = 16  # whole games an evaluation
    checkpoint_every: int = 50_000  # steps between checkpoints: the most that a crash loses
    window: int = 20  # games in the running mean return

    def __post_init__(self) -> None:
        _at_least(0, eval_every=self.eval_every)
        _at_least(
            1,
            eval_episodes=self.eval_episodes,
            checkpoint_every=self.checkpoint_every,
            window=self.window,
        )


@dataclass(frozen=True)
class Recipe:
    """How to train one policy."""

    name: str = "pong-cfc"  # of the policy and its run folders
    steps: int = 1_250_000  # decisions in all environments together; one is 4 frames of the game
    seed: int = 1  # of network, sampling and environments
    start: Annotated[str, tyro.conf.arg(name="from")] = ""  # policy whose weights it starts with
    environment: Environment = field(default_factory=Environment)
    policy: Policy = field(default_factory=Policy)
    circuit: Circuit = field(default_factory=Circuit)
    ppo: PPO = field(default_factory=PPO)
    cloning: Cloning = field(default_factory=Cloning)
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        _at_least(1, steps=self.steps)
        _at_least(0, seed=self.seed)
        if not self.name or self.name.startswith(".") or set(self.name) & set('/\\:*?"<>|\n'):
            raise ValueError(f"name is {self.name!r}, expected one that can name a folder")
        sequences = self.environment.num_envs * (self.ppo.n_steps // self.ppo.sequence_length)
        batch, length = self.ppo.batch_size, self.ppo.sequence_length
        if batch % length or sequences % max(batch // length, 1):
            raise ValueError(
                f"ppo.batch_size is {batch}, expected {length} (ppo.sequence_length) times a "
                f"divisor of {sequences} (sequences a rollout)"
            )


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML that `from_toml` reads back to an equal one."""
    return tomli_w.dumps(dataclasses.asdict(recipe))


def from_toml(text: str, source: str = "recipe") -> Recipe:
    """A recipe from TOML; what is not named keeps its default.

    Raises:
        UserError: text that is not TOML, an unknown key, a value of a wrong type or out of range;
            the message names `source` and the key.
    """
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{source} is not TOML: {error}") from None
    return _parse(Recipe, data, source, "")


def read_recipe(path: Path) -> Recipe:
    """A recipe file.

    Raises:
        UserError: as `from_toml`, or no such file, or one that is not text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"there is no recipe {path}; ncp-agents train --list shows the policies that have one"
        ) from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise UserError(f"{path} is not a recipe: expected a TOML text file") from None
    return from_toml(text, str(path))


T = TypeVar("T")


def _parse(kind: type[T], data: Mapping[str, Any], source: str, prefix: str) -> T:
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in data.items():
        try:
            registry.get("key", key, hints)
        except UserError as error:
            where = f"{source}, [{prefix.rstrip('.')}]" if prefix else source
            raise UserError(f"{where}: {error}") from None
        values[key] = _value(hints[key], value, source, prefix + key)
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except ValueError as error:
        section = f"[{prefix.rstrip('.')}] " if prefix else ""
        raise UserError(f"{source}: {section}{error}") from None


def _value(hint: Any, value: Any, source: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise UserError(f"{source}: {key} is {value!r}, expected a table [{key}]")
        return _parse(hint, value, source, f"{key}.")
    if typing.get_origin(hint) is Literal:
        try:
            return registry.get(key, value, typing.get_args(hint))
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
    if hint is float and type(value) is int:
        return float(value)
    expected = hint.__name__ if isinstance(hint, type | types.GenericAlias) else str(hint)
    if type(value) is not hint:
        raise UserError(
            f"{source}: {key} is {value!r} ({type(value).__name__}), expected {expected}"
        )
    return value


def _at_least(least: int, **values: float) -> None:
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} is {value}, expected >= {least}")


def _above_zero(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} is {value}, expected above 0")
