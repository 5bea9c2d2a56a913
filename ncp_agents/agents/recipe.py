"""Everything needed to train a policy, as data: frozen dataclasses, and TOML on disk.

The fields are also the options of the command line: `ppo.learning_rate` here is
`--ppo.learning-rate` there, with the comment behind it as its help.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import tyro
from pydantic import Field

from ncp_agents.envs.games import normalise_game
from ncp_agents.envs.protocol import AtariProtocol, protocol
from ncp_agents.errors import UserError
from ncp_agents.layers.checks import Init, Mode
from ncp_agents.schema import Validated, parse_toml

RECIPE = "recipe.toml"

Count = Annotated[int, Field(ge=1, le=10**6)]
CountOrNever = Annotated[int, Field(ge=0, le=10**12)]
Size = Annotated[int, Field(ge=1, le=4096)]  # of a layer
Seed = Annotated[int, Field(ge=0, lt=2**31)]  # NumPy's and ALE's limits
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Environment(Validated):
    """The parallel training environments."""

    game: str = "pong"  # any spelling: pong, ALE/Pong-v5, PongNoFrameskip-v4
    protocol: Literal["v4", "v5"] = "v4"  # v5 has sticky actions (0.25)
    num_envs: Annotated[int, Field(ge=1, le=1024)] = 16  # parallel environments
    frame_stack: Annotated[int, Field(ge=1, le=16)] = 1  # frames per observation; 1 if recurrent

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "game", normalise_game(self.game))

    def atari_protocol(self) -> AtariProtocol:
        """Return the rules of the training environments."""
        return protocol(self.protocol, frame_stack=self.frame_stack)


@dataclass(frozen=True)
class Circuit(Validated):
    """The recurrent part: neurons on a wiring."""

    cell: Literal["cfc", "ltc", "lstm"] = "cfc"  # neuron model; lstm is torch's, as a baseline
    wiring: Literal["AutoNCP", "FullyConnected", "Random", "dense"] = "AutoNCP"  # connectivity
    units: Size = 64  # neurons in total
    motor_neurons: Size = 16  # neurons that the actor reads; all of them in a dense circuit
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.5  # fraction removed; AutoNCP and Random only
    wiring_seed: Seed = 22222  # draws the wiring's synapses
    mode: Mode = "default"  # form of the CfC equation; cfc only
    init: Init = "balanced"  # initial weights; cfc only
    mixed_memory: bool = False  # a memory cell (LSTM) in front of the neurons
    mask_time_gates: bool = False  # CfC's time gates as sparse as the wiring; cfc only

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell == "lstm" and (self.wiring != "dense" or self.mixed_memory):
            raise ValueError(
                f"wiring is {self.wiring!r}, mixed_memory {self.mixed_memory}, expected 'dense' "
                "and False with cell 'lstm'"
            )

    def wiring_config(self) -> dict[str, Any] | int:
        """Return what `ncp_agents.sb3` makes the wiring from."""
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
class PolicyRecipe(Validated):
    """The network around the circuit."""

    encoder: Literal["compact", "deep", "nature"] = "compact"  # convolutions
    features: Size = 64  # size of the encoder's output
    critic: Literal["circuit+encoder", "circuit", "encoder"] = "circuit+encoder"  # critic's input
    memory: bool = True  # without it the circuit's state is reset before each step


@dataclass(frozen=True)
class PPO(Validated):
    """Proximal policy optimisation on whole sequences (Schulman et al. 2017)."""

    learning_rate: Positive = 1e-3  # of Adam, at the start
    anneal: bool = True  # anneal learning rate and entropy bonus linearly, the former to the end
    n_steps: Count = 128  # steps per rollout in each environment
    sequence_length: Count = 32  # steps per training sequence; a divisor of n_steps
    batch_size: Count = 256  # steps per minibatch; a multiple of sequence_length
    n_epochs: Count = 4  # passes over each rollout
    gamma: Fraction = 0.99  # discount factor per step
    gae_lambda: Fraction = 0.95  # generalised advantage estimation, Schulman et al. 2016
    clip_range: Positive = 0.15  # of the probability ratio
    ent_coef: NonNegative = 0.01  # weight of the entropy bonus, at the start
    ent_until: Annotated[float, Field(gt=0, le=1)] = 0.6  # fraction of steps to its end
    vf_coef: NonNegative = 0.5  # weight of the value loss
    max_grad_norm: Positive = 0.5  # larger gradients are scaled down to this norm
    target_kl: NonNegative = 0.0  # ends an update beyond 1.5 times this KL divergence; 0 = never
    # Of a run --from a policy, which has no entropy bonus:
    critic_warmup: CountOrNever = 40_000  # first steps, which train the critic only
    fine_tuning: Positive = 0.3  # the learning rate is multiplied by this


@dataclass(frozen=True)
class Cloning(Validated):
    """Behaviour cloning of demos by truncated backpropagation through time."""

    epochs: Count = 40  # passes over the demos, at most
    learning_rate: Positive = 1e-3  # of AdamW, at the start; annealed linearly to 0
    sequences: Count = 16  # sequences per batch
    sequence_length: Count = 16  # steps of backpropagation; the state is carried over
    max_grad_norm: Positive = 0.5  # larger gradients are scaled down to this norm
    weight_decay: NonNegative = 0.0  # of AdamW
    class_weights: bool = False  # weights each action's loss by the inverse of its frequency
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1  # fraction of episodes
    eval_every: CountOrNever = 10  # epochs between evaluations in whole episodes; 0 = never
    patience: CountOrNever = 12  # epochs without a lower validation loss that end it; 0 = never
    dagger_episodes: Count = 8  # the student's episodes per round of DAgger
    dagger_epochs: Count = 12  # passes over all demos per round of DAgger


@dataclass(frozen=True)
class Schedule(Validated):
    """Evaluations, checkpoints and statistics during training."""

    eval_every: CountOrNever = 250_000  # steps between evaluations; 0 = never
    eval_episodes: Count = 16  # episodes per evaluation, in separate environments
    checkpoint_every: Annotated[int, Field(ge=1)] = (
        50_000  # steps between checkpoints, lost by a crash
    )
    window: Count = 20  # episodes in the running mean return


@dataclass(frozen=True)
class Recipe(Validated):
    """How to train one policy."""

    name: str = "pong-cfc"  # of the policy and its run folders
    steps: Annotated[int, Field(ge=1, le=10**12)] = 1_250_000  # total environment steps of 4 frames
    seed: Seed = 1  # of network, sampling and environments
    start: Annotated[str, tyro.conf.arg(name="from")] = ""  # policy with the initial weights
    environment: Environment = field(default_factory=Environment)
    policy: PolicyRecipe = field(default_factory=PolicyRecipe)
    circuit: Circuit = field(default_factory=Circuit)
    ppo: PPO = field(default_factory=PPO)
    cloning: Cloning = field(default_factory=Cloning)
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.name
        if not name.isprintable() or name[:1] in ("", ".") or set(name) & set('/\\:*?"<>|'):
            raise ValueError(f"name is {name!r}, expected the name of a folder")


def to_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML that `from_toml` reads back to an equal one."""
    return tomli_w.dumps(asdict(recipe))


def from_toml(text: str, source: Path | str = "recipe") -> Recipe:
    """Return the recipe of a TOML text; a missing key keeps its default.

    Raises:
        UserError: text that is not TOML, an unknown key, a value of a wrong type or out of range;
            the message names `source` and the key.
    """
    text = text.replace("dagger_games", "dagger_episodes")  # its name in version 0.1.0
    return parse_toml(Recipe, text, source)


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a file.

    Raises:
        UserError: as `from_toml`, or no such file, or one that is not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise UserError(f"{path} is empty, expected a recipe")
    except FileNotFoundError:
        raise UserError(f"no recipe {path}; list the known ones: ncp-agents policies") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise UserError(f"{path} is not a recipe, expected a TOML file") from None
    return from_toml(text, path)
