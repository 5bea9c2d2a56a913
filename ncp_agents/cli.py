"""The command line: `ncp-agents train | record | clone | evaluate | …`, and the same as scripts.

Options are the fields of dataclasses, read by tyro; a user's mistake is one line and exit code 2.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar, cast

import tyro

from ncp_agents.errors import UserError
from ncp_agents.names import look_up
from ncp_agents.recipe import Circuit, Recipe, read_recipe

OUT_OF_ORDER = 1  # exit code where the work failed, not the user
USER_MISTAKE = 2
SIGNALLED = 128  # plus the signal's number, as shells report it


@dataclass(frozen=True)
class Train:
    """Train a policy, from its recipe, into a run folder.

    Name a policy (`ncp-agents train --list` shows them) or a recipe file. Every field of the recipe
    is an option below, with the recipe's own value as default:

        ncp-agents train pong-cfc --seed 2 --ppo.learning-rate 5e-4

    Ctrl-C saves a checkpoint and ends; --resume goes on from it.
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    run: Path | None = None  # folder of the run; default runs/<name>-seed<seed>
    resume: bool = False  # go on from the run folder's checkpoint; a longer --steps may be given
    save: Path | None = None  # also put the trained policy here, such as policies/my-policy
    list: bool = False  # show the policies that have a recipe, and end
    threads: int = 0  # of torch while it learns; 0 takes one a core


@dataclass(frozen=True)
class Clone:
    """Clone a policy from demos, into a run folder.

    Name a policy, whose recipe tells the network, or a recipe file:

        ncp-agents clone pong-cfc --demos demos/pong
        ncp-agents train pong-cfc --from runs/pong-cfc-clone-seed1/policy

    With --dagger the clone then plays itself, and learns what a saved policy, the teacher, would
    have done in its place:

        ncp-agents clone pong-cfc --demos demos/pong --dagger 3 --teacher pong-cfc

    Ctrl-C ends after the epoch; --resume goes on.
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    demos: tuple[Path, ...] = ()  # folders of demos, as `ncp-agents record` writes them
    run: Path | None = None  # folder of the run; default runs/<name>-clone-seed<seed>
    resume: bool = False  # go on from the run folder's checkpoint
    dagger: int = 0  # rounds of DAgger after the demos are learnt
    teacher: str | None = None  # the policy that says what to do in them; a folder, or a name
    save: Path | None = None  # also put the cloned policy here, such as policies/my-policy
    threads: int = 0  # of torch while it learns; 0 takes one a core


@dataclass(frozen=True)
class Evaluate:
    """Play whole games with saved policies, unclipped, and report their scores.

        ncp-agents evaluate policies/pong-cfc --episodes 30 --video pong.mp4
        ncp-agents evaluate pong-cfc pong-ltc
        ncp-agents evaluate pong-cfc --noise 0.01 0.02 --frame-skip-jitter 1 2 3

    Disturbances come one at a time, at each strength given, beside undisturbed games.
    """

    policies: tyro.conf.Positional[tuple[str, ...]]  # folders, or names as `policies` lists them
    episodes: int = 30  # whole games
    protocol: Literal["v4", "v5"] = "v4"  # v5 has sticky actions (0.25)
    deterministic: bool = False  # take the likeliest action instead of drawing one
    seed: int = 0  # of games and actions
    num_envs: int | None = None  # games played side by side; default 16 at most
    video: Path | None = None  # film a game: .mp4, .webm or .gif
    video_games: int = 1  # games in the video and the page
    brain: bool = False  # show the circuit beside the video's game
    page: Path | None = None  # write a page (.html) of a game and the circuit, to step through
    render: Literal["human"] | None = None  # watch in a window; needs the extra 'play'
    output: Path | None = None  # scores file; default scores.json in the policy's folder
    noise: tuple[float, ...] = ()  # on each pixel: standard deviation as a share of white
    drop_frames: tuple[float, ...] = ()  # probability that an observation is lost
    stickiness: tuple[float, ...] = ()  # probability that a frame repeats the previous action
    frame_skip_jitter: tuple[int, ...] = ()  # k: steps last 4 - k to 4 + k frames
    plot: Path | None = None  # picture of several policies, or of disturbances


@dataclass(frozen=True)
class Plot:
    """Draw the learning curves of runs, over steps and over minutes; seeds of one recipe together.

    ncp-agents plot runs/pong-cfc-seed* runs/pong-ltc-seed1
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]  # folders
    output: Path = Path("curves.png")  # the picture


@dataclass(frozen=True)
class Report:
    """Write the README.md of saved policies, with pictures, from their recipe and scores.

    ncp-agents report policies/pong-cfc
    """

    policies: tyro.conf.Positional[tuple[str, ...]]  # folders, or names as `policies` lists them


@dataclass(frozen=True)
class Record:
    """Record whole games of a saved policy, or of a person, as demos, losslessly: one file a game.

        ncp-agents record pong-cfc --episodes 20 --output demos/pong
        ncp-agents record pong --human --output demos/mine

    Killed at any moment, all finished games are there; --resume goes on.
    """

    policy: tyro.conf.Positional[str | None] = None  # folder or name; with --human a game
    human: bool = False  # play yourself, in a window; needs the extra 'play'
    output: Path | None = None  # folder of the demos; default demos/<policy>
    episodes: int = 20  # whole games in all
    protocol: Literal["v4", "v5"] = "v4"  # v5 has sticky actions (0.25)
    deterministic: bool = False  # take the likeliest action instead of drawing one
    epsilon: float = 0.0  # probability of a random action, for variety
    temperature: float = 1.0  # above 1 draws actions more evenly
    seed: int = 0  # of games and actions
    num_envs: int | None = None  # games played side by side; default 16 at most
    resume: bool = False  # add to the demos that are there
    drop: str | None = None  # take this file, a damaged one, out of the demos, and end


@dataclass(frozen=True)
class Export:
    """Write a saved policy as one ONNX file, once onnxruntime has played a game just as it does.

        ncp-agents export pong-cfc
        python scripts/play_onnx.py pong-cfc.onnx

    Needs the extra 'onnx'.
    """

    policy: tyro.conf.Positional[str]  # a folder, or a name that `ncp-agents policies` lists
    output: Path | None = None  # the file; default <policy>.onnx
    sequence: bool = False  # of whole sequences, of any length, instead of one step


@dataclass(frozen=True)
class Convert:
    """Convert a CfC or LTC layer from one framework's file to another's.

        ncp-agents convert policies/pong-cfc circuit.keras
        ncp-agents convert circuit.keras circuit.safetensors

    A .safetensors file has the names of torch's state dict, which the MLX port reads too.
    """

    source: tyro.conf.Positional[Path]  # .safetensors, .keras, or a saved policy's folder
    target: tyro.conf.Positional[Path]  # .safetensors or .keras


@dataclass(frozen=True)
class Policies:
    """List the saved policies with their scores."""


@dataclass(frozen=True)
class DrawWiring:
    """Draw a circuit: layers in columns, excitatory and inhibitory synapses told apart.

    ncp-agents wiring pong-cfc
    ncp-agents wiring --circuit.units 28 --circuit.motor-neurons 4 --inputs 20
    """

    circuit: Circuit = field(default_factory=Circuit)
    inputs: int = 16  # of the circuit; a policy's are its encoder's features
    output: Path = Path("wiring.png")  # .png, .svg or .pdf


def train(arguments: Sequence[str]) -> int:
    positional = bool(arguments) and not arguments[0].startswith("-")
    first, options = (arguments[0], arguments[1:]) if positional else (None, arguments)
    base = Recipe()
    if first is not None:
        base = _named_recipe(first)
    elif not {"-h", "--help", "--list"} & set(options):
        raise UserError("which policy? name one, such as pong-cfc, or a recipe file; see --list")
    choice = _parse(Train, options, "train POLICY", default=Train(base))
    if choice.list:
        return policies([])

    from ncp_agents.run_folder import RunFolder
    from ncp_agents.sb3.sequence_ppo import NonFiniteError
    from ncp_agents.torch.threads import use_threads
    from ncp_agents.training import copy_policy, default_run
    from ncp_agents.training import train as run_training

    use_threads(choice.threads)
    path = choice.run or default_run(choice.recipe)
    if choice.resume:
        # The run's own recipe is the default of every option now.
        stored = RunFolder.open(path).recipe
        recipe = _parse(Train, options, "train POLICY", default=Train(stored)).recipe
        if replace(stored, steps=recipe.steps) != recipe:
            raise UserError(f"{path} has other settings than these; --resume takes only --steps")
        run = RunFolder.reopen(path, recipe)
    else:
        recipe = choice.recipe
        run = RunFolder.create(path, recipe)
    try:
        outcome = run_training(run, resume=choice.resume)
    except NonFiniteError as error:
        print(f"ncp-agents train: {error}", file=sys.stderr)
        return OUT_OF_ORDER
    done = outcome.counters
    if outcome.stopped_by is not None:
        print(
            f"stopped at {done.steps:,} of {recipe.steps:,} steps, all saved; go on with: "
            f"ncp-agents train {first} --run {path} --resume"
        )
        return SIGNALLED + outcome.stopped_by
    print(
        f"{done.steps:,} steps in {done.seconds / 60:.1f} minutes; policy {run.policy}, "
        f"curve {run.curve}\nscore it: ncp-agents evaluate {run.policy}"
    )
    if choice.save is not None:
        copy_policy(run, choice.save)
        print(f"saved to {choice.save}")
    return 0


def clone(arguments: Sequence[str]) -> int:
    positional = bool(arguments) and not arguments[0].startswith("-")
    if not positional and not {"-h", "--help"} & set(arguments):
        raise UserError("which network? name a policy, such as pong-cfc, or a recipe file")
    base = _named_recipe(arguments[0]) if positional else Recipe()
    options = arguments[1:] if positional else arguments
    choice = _parse(Clone, options, "clone POLICY", default=Clone(base))
    if not choice.demos:
        raise UserError("which demos? --demos FOLDER; record some: ncp-agents record pong-cfc")

    from ncp_agents.cloning import check_demos
    from ncp_agents.cloning import clone as run_cloning
    from ncp_agents.dagger import check_teacher, dagger
    from ncp_agents.datasets.episodes import Demos
    from ncp_agents.run_folder import RunFolder
    from ncp_agents.saved_policy import find, load
    from ncp_agents.stopping import Stop
    from ncp_agents.torch.threads import use_threads
    from ncp_agents.training import copy_policy

    if choice.dagger < 0:
        raise UserError(f"dagger is {choice.dagger}, expected rounds >= 0; usual is 3")
    if choice.dagger and choice.teacher is None:
        raise UserError("who teaches in --dagger? name a policy, such as --teacher pong-cfc")
    teacher = load(find(choice.teacher)) if choice.teacher is not None else None
    if teacher is not None:
        check_teacher(teacher, choice.recipe)
    use_threads(choice.threads)
    demos = [Demos(path) for path in choice.demos]
    check_demos(demos, choice.recipe)
    path = choice.run or Path("runs") / f"{choice.recipe.name}-clone-seed{choice.recipe.seed}"
    run = RunFolder.open(path) if choice.resume else RunFolder.create(path, choice.recipe)
    if choice.resume:
        asked = _parse(Clone, options, "clone POLICY", default=Clone(run.recipe)).recipe
        if asked != run.recipe:
            raise UserError(
                f"{path} has other settings than these; --resume takes them as they are"
            )
    with Stop() as stop:
        stopped = lambda: bool(stop.received)  # noqa: E731
        done = run_cloning(run, demos, resume=choice.resume, stopped=stopped)
        if teacher is not None and choice.dagger and not stopped():
            done = dagger(run, demos, teacher, choice.dagger, stopped=stopped)
    if stop.received is not None:
        print(f"stopped after {done.epoch} epochs, all saved; go on with --run {path} --resume")
        return SIGNALLED + stop.received
    best = "" if done.best_return is None else f", mean return {done.best_return:.1f}"
    print(
        f"{done.epoch} epochs in {done.seconds / 60:.1f} minutes; policy {run.policy}{best}, "
        f"curve {run.curve}\nscore it: ncp-agents evaluate {run.policy}"
    )
    if choice.save is not None:
        copy_policy(run, choice.save)
        print(f"saved to {choice.save}")
    return 0


def _named_recipe(name: str) -> Recipe:
    """The recipe of a file, of a policy folder, or of a policy by name."""
    from ncp_agents.saved_policy import RECIPE, find

    path = Path(name)
    if path.suffix == ".toml":
        return read_recipe(path)
    return read_recipe(find(name) / RECIPE)


def record(arguments: Sequence[str]) -> int:
    choice = _parse(Record, arguments, "record")
    if choice.output is None and choice.policy is None:
        raise UserError("whose games? name a policy, such as pong-cfc; see ncp-agents policies")
    output = choice.output or Path("demos") / Path(choice.policy or "").name

    if choice.drop is not None:
        from ncp_agents.datasets.episodes import Demos

        Demos(output).drop(choice.drop)
        return 0
    if choice.policy is None:
        raise UserError(f"whose games for {output}? name a policy, such as pong-cfc")

    if choice.human:
        for name in ("deterministic", "epsilon", "temperature", "num_envs"):
            if getattr(choice, name) != getattr(Record, name):
                raise UserError(
                    f"--{name.replace('_', '-')} is of a policy's games, not a person's"
                )

        from ncp_agents.recording import record_by_hand

        record_by_hand(
            choice.policy,
            output,
            episodes=choice.episodes,
            protocol=choice.protocol,
            seed=choice.seed,
            resume=choice.resume,
        )
        return 0

    from ncp_agents.recording import record_command
    from ncp_agents.saved_policy import find, load

    record_command(
        load(find(choice.policy)),
        output,
        episodes=choice.episodes,
        protocol=choice.protocol,
        seed=choice.seed,
        num_envs=choice.num_envs,
        deterministic=choice.deterministic,
        epsilon=choice.epsilon,
        temperature=choice.temperature,
        resume=choice.resume,
    )
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    choice = _parse(Evaluate, arguments, "evaluate")
    kinds = ("noise", "drop_frames", "stickiness", "frame_skip_jitter")
    sweeps = {kind: getattr(choice, kind) for kind in kinds if getattr(choice, kind)}
    if not choice.policies:
        raise UserError("which policy? name one, such as pong-cfc; see ncp-agents policies")

    from ncp_agents.comparison import compare_command
    from ncp_agents.evaluation import evaluate_command
    from ncp_agents.saved_policy import find, load

    loaded = [load(find(name)) for name in choice.policies]
    if len(loaded) > 1 or sweeps or choice.plot is not None:
        for option in ("video", "brain", "page", "render", "output"):
            if getattr(choice, option):
                raise UserError(f"--{option} is for one policy, undisturbed; leave it out here")
        compare_command(
            loaded,
            sweeps,
            episodes=choice.episodes,
            protocol=choice.protocol,
            deterministic=choice.deterministic,
            seed=choice.seed,
            num_envs=choice.num_envs,
            plot=choice.plot,
        )
        return 0
    evaluate_command(
        loaded[0],
        episodes=choice.episodes,
        protocol=choice.protocol,
        deterministic=choice.deterministic,
        seed=choice.seed,
        num_envs=choice.num_envs,
        video=choice.video,
        video_games=choice.video_games,
        brain=choice.brain,
        page=choice.page,
        render=choice.render,
        output=choice.output,
    )
    return 0


def export(arguments: Sequence[str]) -> int:
    choice = _parse(Export, arguments, "export")

    from ncp_agents.export import export_command
    from ncp_agents.saved_policy import find, load

    export_command(load(find(choice.policy)), choice.output, choice.sequence)
    return 0


def plot(arguments: Sequence[str]) -> int:
    choice = _parse(Plot, arguments, "plot")

    from ncp_agents.rendering.curve import draw_curves
    from ncp_agents.run_folder import RunFolder

    draw_curves([RunFolder.open(path) for path in choice.runs], choice.output)
    print(f"picture: {choice.output}")
    return 0


def report(arguments: Sequence[str]) -> int:
    choice = _parse(Report, arguments, "report")
    if not choice.policies:
        raise UserError("which policy? name one, such as pong-cfc; see ncp-agents policies")

    from ncp_agents.report import write_report
    from ncp_agents.saved_policy import find

    for name in choice.policies:
        print(*write_report(find(name)), sep="\n")
    return 0


def convert(arguments: Sequence[str]) -> int:
    choice = _parse(Convert, arguments, "convert")

    from ncp_agents.convert import convert as convert_file

    convert_file(choice.source, choice.target)
    print(f"layer: {choice.target}")
    return 0


def policies(arguments: Sequence[str]) -> int:
    _parse(Policies, arguments, "policies")

    from rich.console import Console

    from ncp_agents.zoo import policies_table

    Console().print(policies_table())
    return 0


def wiring(arguments: Sequence[str]) -> int:
    """Draw a policy's wiring, or one given by options."""
    base = DrawWiring()
    if arguments and not arguments[0].startswith("-"):
        policy, *arguments = arguments
        recipe = _named_recipe(policy)
        base = DrawWiring(recipe.circuit, recipe.policy.features, Path(f"{recipe.name}-wiring.png"))
    choice = _parse(DrawWiring, arguments, "wiring [POLICY]", default=base)

    from matplotlib.figure import Figure

    from ncp_agents.files import replacing
    from ncp_agents.wirings import wiring_from_config

    config = choice.circuit.wiring_config()
    if isinstance(config, int):
        raise UserError("a dense circuit has no wiring to draw; choose one with --circuit.wiring")
    try:
        drawn = wiring_from_config(config)
        drawn.build(choice.inputs)
    except ValueError as error:
        raise UserError(str(error)) from None
    form = look_up("format", choice.output.suffix.lstrip(".") or "png", ("png", "svg", "pdf"))
    figure = cast(Figure, drawn.draw().figure)
    with replacing(choice.output) as temporary:
        figure.savefig(temporary, format=form)
    print(f"{drawn}\npicture: {choice.output}")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "record": record,
    "clone": clone,
    "evaluate": evaluate,
    "plot": plot,
    "report": report,
    "export": export,
    "convert": convert,
    "policies": policies,
    "wiring": wiring,
}

USAGE = """usage: ncp-agents COMMAND [OPTIONS]

  train POLICY      train a policy from its recipe, in a run folder
  record POLICY     record a saved policy's games, or a person's, as demos
  clone POLICY      clone a policy from demos
  evaluate POLICY…  play whole games with saved policies, and report their scores
  plot RUN…         draw the learning curves of runs
  report POLICY…    write a saved policy's README.md from its recipe and scores
  export POLICY     write a saved policy as an ONNX file
  convert FILE FILE convert a layer between torch, Keras and MLX
  policies          list the saved policies with their scores
  wiring [POLICY]   draw a circuit: who feeds whom, and with what sign

`ncp-agents COMMAND --help` explains each with its options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command → exit code: 0, 1 (the work failed), 2 (the user's mistake), 128 + signal."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else USER_MISTAKE
    if arguments[0] == "--version":
        from ncp_agents import __version__

        print(__version__)
        return 0
    try:
        return look_up("command", arguments[0], COMMANDS)(arguments[1:])
    except (UserError, OSError) as error:  # OSError: a full or unwritable disk
        print(f"ncp-agents: {error}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        return SIGNALLED + 2


T = TypeVar("T")


def _parse(kind: type[T], arguments: Sequence[str], command: str, default: T | None = None) -> T:
    """tyro's reading of the arguments, with its boxed error cut down to one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if default is None:
                return tyro.cli(kind, args=arguments, prog=f"ncp-agents {command}")
            return tyro.cli(kind, args=arguments, prog=f"ncp-agents {command}", default=default)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise UserError(_one_line(said.getvalue())) from None
    except ValueError as error:  # of the outermost dataclass, which tyro lets through
        raise UserError(str(error)) from None


def _one_line(box: str) -> str:
    """The first paragraph of tyro's box below its title, and the first option that it suggests."""
    _, *lines = (line.strip("╭╮╰╯│| ") for line in box.splitlines())
    paragraphs = [
        " ".join(group)
        for is_rule, group in itertools.groupby(lines, lambda line: set(line) <= set("─-"))
        if not is_rule
    ]
    suggestion = re.search(r"Perhaps you meant:\W*(--[\w.-]+)", box)
    return paragraphs[0] + (f"; did you mean {suggestion[1]}?" if suggestion else "")
