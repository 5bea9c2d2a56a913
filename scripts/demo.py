"""The whole road in 4 minutes: play, record, clone, and see the clone beside its teacher.

    python scripts/demo.py [--out demo] [--games 10]

Writes into --out: demos/ (the recorded games), clone/ (a run folder with curve.png), and a video of
a game of each, teacher.mp4 and clone.mp4.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.cli.clone import draw
from ncp_agents.cli.console import Terminal
from ncp_agents.cli.record import print_summary
from ncp_agents.errors import UserError
from ncp_agents.evaluation.evaluate import evaluate_command
from ncp_agents.evaluation.rollout import check_episodes
from ncp_agents.files import write_text
from ncp_agents.imitation.cloning import clone
from ncp_agents.imitation.recording import record_policy
from ncp_agents.training.run_folder import RunFolder

MARK = ".demo"  # a file that tells the folders of demos


@dataclass(frozen=True)
class Demo:
    """A saved policy plays Pong; its games are recorded; a fresh network is cloned from them."""

    out: Path = Path("demo")  # folder for all of it; what an earlier demo left there is replaced
    policy: str = "pong-cfc"  # the teacher
    episodes: int = 8  # games that the teacher, and then its clone, is scored in
    games: int = 10  # to record
    epochs: int = 30  # of cloning


def main() -> None:
    options = tyro.cli(Demo)
    console = Terminal()
    demos_path, run_path = options.out / "demos", options.out / "clone"
    teacher = saved_policy.load(zoo.find(options.policy))
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / MARK).is_file():
        raise UserError(f"{options.out} is not empty, nor of an earlier demo; name another --out")
    check_episodes(options.episodes, None, 0)
    check_episodes(options.games, None, 0)
    try:
        cloning = replace(teacher.recipe.cloning, epochs=options.epochs, eval_every=0)
    except ValueError as error:
        raise UserError(str(error)) from None
    write_text(options.out / MARK, "Of scripts/demo.py, which replaces what is in this folder.\n")
    for path in (demos_path, run_path):
        shutil.rmtree(path, ignore_errors=True)
    circuit = teacher.network.circuit
    console.rule(f"1. {teacher.name} plays {teacher.recipe.environment.game}")
    parameters = sum(p.numel() for p in teacher.network.parameters())
    console.print(
        f"{circuit.state_size} neurons, {parameters:,} parameters, one frame at a time",
        soft_wrap=True,
    )
    evaluate_command(
        teacher,
        episodes=options.episodes,
        video=options.out / "teacher.mp4",
        output=options.out / "teacher.json",
    )

    console.rule("2. its games are recorded")
    demos = record_policy(teacher, demos_path, episodes=options.games)
    print_summary(demos)

    console.rule("3. a fresh network learns to do the same")
    recipe = replace(teacher.recipe, name="clone", cloning=cloning)
    run = RunFolder.create(run_path, recipe)
    clone(run, [demos], on_progress=draw)

    console.rule("4. the clone plays")
    evaluate_command(
        saved_policy.load(run.policy),
        episodes=options.episodes,
        video=options.out / "clone.mp4",
        output=options.out / "clone.json",
    )
    console.print(
        f"watch: {options.out / 'teacher.mp4'} and {options.out / 'clone.mp4'}; "
        f"how it learnt: {run.curve}\n"
        f"better still: ncp-agents train {teacher.name} --from {run.policy}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
