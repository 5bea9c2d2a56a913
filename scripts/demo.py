"""Evaluate, record, clone, and compare the clone with its teacher, in 4 minutes.

    python scripts/demo.py [--out demo] [--demos 10]

Writes into --out: demos/ (the recorded episodes), clone/ (a run folder with curve.png), and a video
of an episode of each, teacher.mp4 and clone.mp4.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.cli.curves import draw_cloning
from ncp_agents.cli.evaluate import Evaluate
from ncp_agents.cli.evaluate_one import evaluate_one
from ncp_agents.cli.record import summary
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import check_episodes
from ncp_agents.files import write_text
from ncp_agents.imitation.cloning import clone
from ncp_agents.imitation.recording import record_policy
from ncp_agents.training.run_folder import RunFolder

MARK = ".demo"  # a file that marks the folders this script may replace


@dataclass(frozen=True)
class Demo:
    """Record a saved policy's episodes of Pong, and clone a new network from them."""

    out: Path = Path("demo")  # folder of all files; those of an earlier demo are replaced
    policy: str = "pong-cfc"  # the teacher
    episodes: int = 8  # in evaluations of the teacher and the clone
    demos: int = 10  # episodes to record
    epochs: int = 30  # of cloning


def main() -> None:
    options = tyro.cli(Demo)
    demos_path, run_path = options.out / "demos", options.out / "clone"
    teacher = saved_policy.load(zoo.find(options.policy))
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / MARK).is_file():
        raise UserError(f"{options.out} is not empty, nor of an earlier demo; name another --out")
    check_episodes(options.episodes, None, 0)
    check_episodes(options.demos, None, 0)
    try:
        cloning = replace(teacher.recipe.cloning, epochs=options.epochs, eval_every=0)
    except ValueError as error:
        raise UserError(str(error)) from None
    write_text(options.out / MARK, "Of scripts/demo.py, which replaces what is in this folder.\n")
    for path in (demos_path, run_path):
        shutil.rmtree(path, ignore_errors=True)

    def evaluation(name: str) -> Evaluate:
        video, scores = (options.out / f"{name}.{ending}" for ending in ("mp4", "json"))
        return Evaluate(episodes=options.episodes, video=video, output=scores)

    print(f"\n1. evaluate {teacher.name}")
    evaluate_one(teacher, evaluation("teacher"))
    print("\n2. record its episodes")
    demos = record_policy(teacher, demos_path, episodes=options.demos)
    print(summary(demos))

    print("\n3. clone a new network from them")
    run = RunFolder.create(run_path, replace(teacher.recipe, name="clone", cloning=cloning))
    clone(run, [demos], on_progress=draw_cloning)

    print("\n4. evaluate the clone")
    evaluate_one(saved_policy.load(run.policy), evaluation("clone"))
    print(
        f"videos: {options.out / 'teacher.mp4'} and {options.out / 'clone.mp4'}; curve {run.curve}"
        f"\ncontinue with PPO: ncp-agents train {teacher.name} --from {run.policy}"
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
