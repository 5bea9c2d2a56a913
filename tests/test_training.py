"""Training end to end: real environments, real processes, killed at real moments."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import ROLLOUT, SMALL_RECIPE, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.agents.recipe import Environment, Schedule, read_recipe
from ncp_agents.agents.weights import weights
from ncp_agents.cli import main
from ncp_agents.errors import UserError
from ncp_agents.sb3.callbacks import Periodically
from ncp_agents.training import callback
from ncp_agents.training.checkpoint import TrainingProgress, load_checkpoint
from ncp_agents.training.progress import COLUMNS, ProgressCsv, read_progress
from ncp_agents.training.run_folder import LOCK, RunFolder
from ncp_agents.training.train import make_env, make_model, train

pytestmark = pytest.mark.slow

SMALL = [
    *("--environment.num-envs", "2", "--policy.features", "16", "--threads", "1"),
    *("--circuit.units", "12", "--circuit.motor-neurons", "3"),
    *("--ppo.n-steps", "16", "--ppo.sequence-length", "16", "--ppo.batch-size", "16"),
    *("--ppo.n-epochs", "1", "--schedule.eval-every", "0"),
    *("--schedule.checkpoint-every", str(ROLLOUT)),
]
SCRIPT = str(Path(__file__).parent.parent / "scripts" / "train.py")


def start(run: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, SCRIPT, "pong-cfc", "--run", str(run), *SMALL, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_until(condition, process: subprocess.Popen, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the training did not get there in time"
        time.sleep(0.02)


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def steps_of(run: Path) -> list[float]:
    return [row["steps"] for row in read_progress(run / "progress.csv")]


def evaluations_of(run: Path) -> list[dict[str, float]]:
    return [row for row in read_progress(run / "progress.csv") if "eval_return" in row]


def checkpoint_of(run: Path) -> TrainingProgress:
    recipe = read_recipe(run / "recipe.toml")
    with closing(make_env(recipe)) as env:
        return load_checkpoint(run / "checkpoint.safetensors", make_model(recipe, env), window=20)


def resume(run: Path, steps: int) -> None:
    assert main(["train", "pong-cfc", "--run", str(run), "--resume", "--steps", str(steps)]) == 0
    rows = steps_of(run)
    assert rows == sorted(set(rows))
    assert rows[-1] >= steps


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("runs") / "small")


def test_a_run_leaves_recipe_progress_events_and_policy(finished):
    assert read_recipe(finished.path / "recipe.toml") == SMALL_RECIPE
    assert steps_of(finished.path) == [ROLLOUT * i for i in (1, 2, 3, 4)]
    with finished.progress.open() as file:
        last = list(csv.DictReader(file))[-1]
    assert list(last) == list(COLUMNS)
    assert float(last["steps_per_second"]) > 0
    assert float(last["entropy"]) == pytest.approx(np.log(6), rel=0.1)  # six actions, untrained
    actions, _ = saved_policy.load(finished.policy).predict(np.zeros((2, 1, 84, 84), np.uint8))
    assert actions.shape == (2,)
    events = EventAccumulator(str(finished.tensorboard)).Reload()
    assert [e.step for e in events.Scalars("train/value_loss")] == [ROLLOUT * i for i in (2, 3, 4)]
    assert {path.name for path in finished.path.rglob(".*")} == {LOCK}  # no temporary file is left


def test_the_same_seed_trains_the_same_policy(finished, tmp_path):
    again = trained(tmp_path / "again")
    first, second = (saved_policy.load(run.policy) for run in (finished, again))
    for name, value in weights(first.network).items():
        assert torch.equal(value, weights(second.network)[name]), name


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_resume_continues(tmp_path, number, code):
    run = tmp_path / "run"
    process = start(run, "--steps", "1000000")
    wait_until(lambda: len(steps_of(run)) >= 3, process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == code
    stopped = int(re.search(r"stopped at ([\d,]+)", out)[1].replace(",", ""))
    assert f"--run {run} --resume" in out
    saved_policy.load(run / "policy")
    resume(run, stopped + 3 * ROLLOUT)
    assert read_recipe(run / "recipe.toml").steps == stopped + 3 * ROLLOUT


def test_kill_9_loses_at_most_one_checkpoint_interval(tmp_path):
    run = tmp_path / "run"
    process = start(run, "--steps", "1000000")
    wait_until(lambda: len(steps_of(run)) >= 4, process)
    kill(process)
    reached = int(steps_of(run)[-1])
    assert checkpoint_of(run).steps >= reached - 2 * ROLLOUT  # the interval, and the last rollout
    resume(run, reached + 2 * ROLLOUT)


def test_killed_before_the_first_checkpoint_starts_again(tmp_path):
    run = RunFolder.create(tmp_path / "run", SMALL_RECIPE)
    assert train(RunFolder.open(run.path), resume=True).steps == SMALL_RECIPE.steps


@pytest.mark.parametrize(
    ("rollouts", "rate", "batch_size"),
    [(20, "1e38", "16"), (1, "1e39", "32")],  # one of many updates, and the only minibatch
)
def test_nan_ends_the_training_with_the_checkpoint_named(
    rollouts, rate, batch_size, tmp_path, capsys
):
    options = [
        *("--run", str(tmp_path / "run"), *SMALL, "--steps", str(rollouts * ROLLOUT)),
        *("--ppo.learning-rate", rate, "--ppo.batch-size", batch_size),
        *("--ppo.no-anneal", "--ppo.max-grad-norm", "1e9"),
    ]
    assert main(["train", "pong-cfc", *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "checkpoint" in error
    assert "lower --ppo.learning-rate" in error
    assert not list(tmp_path.rglob("*.safetensors"))  # nothing that is not finite was saved


EVALUATED = replace(
    SMALL_RECIPE,
    steps=2 * ROLLOUT,
    schedule=Schedule(eval_every=ROLLOUT, eval_episodes=1, checkpoint_every=ROLLOUT),
)


def test_evaluations_are_logged_and_the_best_policy_is_kept(tmp_path):
    run, calls = RunFolder.create(tmp_path / "run", EVALUATED), []
    result = train(run, on_progress=lambda run: calls.append(steps_of(run.path)))
    returns = [row["eval_return"] for row in evaluations_of(run.path)]
    assert len(returns) == 2
    assert all(-21 <= score <= 21 for score in returns)
    assert result.best_return == max(returns)
    assert [steps[-1] for steps in calls] == [ROLLOUT, 2 * ROLLOUT, 2 * ROLLOUT]
    saved_policy.load(run.policy)


def test_a_checkpoint_does_not_wait_for_an_evaluation(tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(callback, "evaluate", killed)
    run = RunFolder.create(tmp_path / "run", EVALUATED)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    assert checkpoint_of(run.path).steps == ROLLOUT


def test_an_evaluation_is_not_lost_when_the_training_is_killed(tmp_path):
    run = tmp_path / "run"
    schedule = ["--schedule.eval-every", "64", "--schedule.eval-episodes", "1"]
    process = start(run, *schedule, "--schedule.checkpoint-every", "1000000", "--steps", "1000000")
    saved = run / "checkpoint.safetensors"
    wait_until(lambda: evaluations_of(run) and saved.exists(), process)
    kill(process)
    progress = checkpoint_of(run)
    ProgressCsv(run / "progress.csv", last_step=progress.steps).close()
    assert evaluations_of(run)[-1]["steps"] == progress.steps
    assert progress.best_return == max(row["eval_return"] for row in evaluations_of(run))


def test_periodic_jobs_keep_their_times_through_resumptions():
    times = []

    def until(steps: int, start: int, last: int) -> None:
        job = Periodically(100, lambda: times.append(job.num_timesteps), last)
        for job.num_timesteps in range(start, steps, 30):
            job.on_rollout_start()

    until(300, start=0, last=0)
    assert times == [120, 210]
    until(500, start=270, last=210)  # as if never interrupted
    assert times == [120, 210, 300, 420]


def test_a_run_that_is_done_can_be_saved_later(tmp_path):
    run, saved = tmp_path / "run", tmp_path / "saved"
    steps = ["--steps", "40"]  # its second rollout ends at 64
    assert main(["train", "pong-cfc", "--run", str(run), *SMALL, *steps]) == 0
    before = (run / "progress.csv").read_bytes()
    assert main(["train", "--run", str(run), "--resume", "--save", str(saved)]) == 0
    saved_policy.load(saved)
    assert (saved / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "progress.csv").read_bytes() == before


def test_a_recipe_that_a_person_wrote_stays(tmp_path, capsys):
    run = RunFolder.create(tmp_path / "run", SMALL_RECIPE)
    file, other = run.path / "recipe.toml", replace(SMALL_RECIPE, steps=77)
    before = file.read_bytes()
    with run.lock(), pytest.raises(UserError, match="locked"):
        RunFolder.create(run.path, other)
    assert file.read_bytes() == before
    file.write_text("# why these numbers\n" + file.read_text())
    with pytest.raises(UserError, match=r"recipe\.toml"):
        RunFolder.create(run.path, other)
    assert main(["train", str(file), "--run", str(run.path), "--threads", "1"]) == 0
    assert file.read_text().startswith("# why these numbers")

    edited = tmp_path / "edited.toml"
    edited.write_text(file.read_text().replace("gamma = 0.99", "gamma = 0.5"))
    assert main(["train", str(edited), "--run", str(run.path), "--resume"]) == 2
    assert str(edited) in capsys.readouterr().err


def test_a_folder_that_cannot_be_resumed_stays_as_it_is(finished, tmp_path, capsys):
    folder = shutil.copytree(zoo.find("breakout-cfc"), tmp_path / "policy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["train", "breakout-cfc", "--run", str(folder), "--resume"]) == 2
    assert "saved policy" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    run = shutil.copytree(finished.path, tmp_path / "run")
    assert main(["train", "pong-ltc", "--run", str(run), "--resume"]) == 2
    assert "'pong-cfc'" in capsys.readouterr().err
    assert main(["train", "--run", str(run), "--resume", "--steps", str(ROLLOUT)]) == 2
    assert f"more than {ROLLOUT}" in capsys.readouterr().err
    assert read_recipe(run / "recipe.toml") == SMALL_RECIPE
    assert main(["train", "--resume"]) == 2
    assert "--run" in capsys.readouterr().err


def test_the_destination_is_checked_before_the_training(tmp_path):
    run, breakout = tmp_path / "run", shutil.copytree(zoo.find("breakout-cfc"), tmp_path / "b")
    save = ["--run", str(run), "--save", str(breakout)]
    assert main(["train", "pong-cfc", *save, *SMALL]) == 2
    assert not run.exists()
    recipe = replace(SMALL_RECIPE, environment=Environment(game="breakout", num_envs=2))
    RunFolder.create(run, recipe)  # whose game is read from the run folder
    assert main(["train", *save, "--resume"]) == 0


def test_an_unwritable_run_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "pong-cfc", "--run", str(tmp_path / "file" / "run"), *SMALL]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_from_a_policy_starts_with_its_weights(finished, tmp_path):
    recipe = replace(SMALL_RECIPE, start=str(finished.policy), steps=2 * ROLLOUT)
    run = RunFolder.create(tmp_path / "run", recipe)
    train(run)  # all of it the critic's warm-up
    ours, theirs = (saved_policy.load(r.policy).network for r in (run, finished))
    before = weights(theirs)
    moved = {name for name, value in weights(ours).items() if not torch.equal(value, before[name])}
    assert moved == {"value_net.weight", "value_net.bias"}
    assert read_recipe(run.policy / "recipe.toml").start == str(finished.policy)


def test_a_run_from_another_network_is_refused(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, fact in ((str(finished.policy), "does not fit"), ("pong-cf", "'pong-cfc'")):
        assert main(["train", "pong-cfc", "--from", name, "--run", "run"]) == 2
        assert fact in capsys.readouterr().err
    assert main(["train", "pong-cfc", "--run", "run", *SMALL, "--steps", str(ROLLOUT)]) == 0
