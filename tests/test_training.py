"""Training end to end: real games, real processes, killed at real moments."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import ROLLOUT, SMALL_RECIPE, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.agents.recipe import Environment, Recipe, Schedule, read_recipe
from ncp_agents.cli import main
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.errors import UserError
from ncp_agents.sb3.callbacks import Periodically
from ncp_agents.training.progress import COLUMNS, ProgressCsv, read_progress
from ncp_agents.training.run_folder import LOCK, RunFolder
from ncp_agents.training.train import make_model, train

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
        [sys.executable, SCRIPT, "pong-cfc", "--run", str(run), *options],
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


def steps_of(run: Path) -> list[float]:
    return [row["steps"] for row in read_progress(run / "progress.csv")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("runs") / "small")


def test_a_run_leaves_everything_a_person_wants(finished):
    assert read_recipe(finished.path / "recipe.toml") == SMALL_RECIPE
    assert steps_of(finished.path) == [ROLLOUT * i for i in (1, 2, 3, 4)]
    with finished.progress.open() as file:
        last = list(csv.DictReader(file))[-1]
    assert list(last) == list(COLUMNS)
    assert float(last["steps_per_second"]) > 0
    assert float(last["entropy"]) == pytest.approx(np.log(6), rel=0.1)  # six actions, untrained
    assert finished.curve.read_bytes().startswith(b"\x89PNG")
    policy = saved_policy.load(finished.policy)
    actions, _ = policy.act(np.zeros((2, 1, 84, 84), np.uint8))
    assert actions.shape == (2,)
    events = EventAccumulator(str(finished.tensorboard)).Reload()
    assert [e.step for e in events.Scalars("train/value_loss")] == [ROLLOUT * i for i in (2, 3, 4)]
    assert {path.name for path in finished.path.rglob(".*")} == {LOCK}  # no temporary file is left


def test_the_same_seed_trains_the_same_policy(finished, tmp_path):
    again = RunFolder.create(tmp_path / "again", SMALL_RECIPE)
    train(again, progress=False)
    first, second = (saved_policy.load(run.policy) for run in (finished, again))
    for name, value in saved_policy.weights(first.network).items():
        assert torch.equal(value, saved_policy.weights(second.network)[name]), name


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_resume_goes_on(tmp_path, which, code):
    run = tmp_path / "run"
    process = start(run, *SMALL, "--steps", "1000000")
    wait_until(lambda: len(steps_of(run)) >= 3, process)
    process.send_signal(which)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == code
    stopped = int(re.search(r"stopped at ([\d,]+)", out)[1].replace(",", ""))
    assert f"--run {run} --resume" in out
    saved_policy.load(run / "policy")

    total = str(stopped + 3 * ROLLOUT)
    assert main(["train", "pong-cfc", "--run", str(run), "--resume", "--steps", total]) == 0
    steps = steps_of(run)
    assert steps == sorted(set(steps))
    assert steps[-1] >= int(total)
    assert read_recipe(run / "recipe.toml").steps == int(total)


def test_kill_9_loses_at_most_one_checkpoint_interval(tmp_path):
    run = tmp_path / "run"
    process = start(run, *SMALL, "--steps", "1000000")
    wait_until(lambda: len(steps_of(run)) >= 4, process)
    process.kill()
    process.communicate()
    reached = steps_of(run)[-1]

    env = AtariVecEnv("pong", 2)
    model = make_model(read_recipe(run / "recipe.toml"), env)
    model._setup_learn(0)
    resumed = RunFolder.open(run).load_checkpoint(model).steps
    env.close()
    assert resumed >= reached - 2 * ROLLOUT  # the interval, and the rollout under way

    total = str(int(reached) + 2 * ROLLOUT)
    assert main(["train", "pong-cfc", "--run", str(run), "--resume", "--steps", total]) == 0
    steps = steps_of(run)
    assert steps == sorted(set(steps))
    assert steps[-1] >= int(total)


def test_killed_before_the_first_checkpoint_starts_anew(tmp_path):
    run = RunFolder.create(tmp_path / "run", SMALL_RECIPE)
    outcome = train(RunFolder.open(run.path), resume=True, progress=False)
    assert outcome.counters.steps == SMALL_RECIPE.steps


@pytest.mark.parametrize(
    ("rollouts", "rate", "batch_size"),
    [(20, "1e38", "16"), (1, "1e39", "32")],  # one of many updates, and the only minibatch
)
def test_nan_stops_with_the_last_good_checkpoint_named(
    rollouts, rate, batch_size, tmp_path, capsys
):
    run = tmp_path / "run"
    options = [
        *SMALL,
        "--steps",
        str(rollouts * ROLLOUT),
        "--ppo.learning-rate",
        rate,
        "--ppo.batch-size",
        batch_size,
        "--ppo.no-anneal",  # to 0 at the last update
        "--ppo.max-grad-norm",
        "1e9",
    ]
    assert main(["train", "pong-cfc", "--run", str(run), *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is no longer a number after" in error
    assert "checkpoint" in error
    assert "lower --ppo.learning-rate" in error
    assert not list(run.rglob("*.safetensors"))  # nothing that is not finite was saved


def test_evaluation_during_training_keeps_the_best_and_is_logged(tmp_path):
    recipe = Recipe(
        steps=2 * ROLLOUT,
        environment=SMALL_RECIPE.environment,
        policy=SMALL_RECIPE.policy,
        circuit=SMALL_RECIPE.circuit,
        ppo=SMALL_RECIPE.ppo,
        schedule=Schedule(eval_every=ROLLOUT, eval_episodes=1, checkpoint_every=ROLLOUT),
    )
    run = RunFolder.create(tmp_path / "run", recipe)
    outcome = train(run, progress=False)
    rows = [row for row in read_progress(run.progress) if "eval_return" in row]
    assert rows
    assert all(-21 <= row["eval_return"] <= 21 for row in rows)
    assert outcome.counters.best_return == max(row["eval_return"] for row in rows)
    saved_policy.load(run.policy)


def test_an_evaluation_is_not_lost_when_the_training_is_killed(tmp_path):
    run = tmp_path / "run"
    schedule = ["--schedule.eval-every", "64", "--schedule.eval-episodes", "1"]
    options = [*schedule, "--schedule.checkpoint-every", "1000000", "--steps", "1000000"]
    process = start(run, *SMALL, *options)
    evaluated = lambda: [r for r in read_progress(run / "progress.csv") if "eval_return" in r]  # noqa: E731
    wait_until(lambda: evaluated() and (run / "checkpoint.safetensors").exists(), process)
    process.kill()
    process.communicate()
    env = AtariVecEnv("pong", 2)
    model = make_model(read_recipe(run / "recipe.toml"), env)
    model._setup_learn(0)
    counters = RunFolder.open(run).load_checkpoint(model)
    env.close()
    ProgressCsv(run / "progress.csv", last_step=counters.steps).close()
    assert evaluated()[-1]["steps"] == counters.steps
    assert counters.best_return == max(row["eval_return"] for row in evaluated())


def test_jobs_keep_their_times_through_resumptions():
    times = []

    def until(steps: int, start: int, last: int) -> None:
        job = Periodically(100, lambda: times.append(job.num_timesteps), last)
        for job.num_timesteps in range(start, steps, 30):
            job._on_rollout_start()

    until(300, start=0, last=0)
    assert times == [120, 210]
    until(500, start=270, last=210)  # as if never interrupted
    assert times == [120, 210, 300, 420]


def test_a_run_that_is_done_can_be_saved_later(tmp_path, capsys):
    run, saved = tmp_path / "run", tmp_path / "saved"
    steps = ["--steps", "40"]  # its second rollout ends at 64
    assert main(["train", "pong-cfc", "--run", str(run), *SMALL, *steps]) == 0
    before = (run / "progress.csv").read_bytes()
    assert main(["train", "--run", str(run), "--resume", "--save", str(saved)]) == 0
    assert f"saved to {saved}" in capsys.readouterr().out
    saved_policy.load(saved)
    assert (run / "progress.csv").read_bytes() == before


def test_recipes_of_others_stay(finished, tmp_path, capsys):
    theirs = RunFolder.create(tmp_path / "run", SMALL_RECIPE)
    before = (theirs.path / "recipe.toml").read_bytes()
    other = replace(SMALL_RECIPE, steps=77)
    with theirs.lock(), pytest.raises(UserError, match="somebody else is at work"):
        RunFolder.create(theirs.path, other)
    assert (theirs.path / "recipe.toml").read_bytes() == before
    file = theirs.path / "recipe.toml"
    file.write_text("# why these numbers\n" + file.read_text())
    with pytest.raises(UserError, match=r"recipe\.toml is another recipe, written by hand"):
        RunFolder.create(theirs.path, other)
    assert main(["train", str(file), "--run", str(theirs.path), "--threads", "1"]) == 0
    assert file.read_text().startswith("# why these numbers")

    edited = tmp_path / "edited.toml"
    edited.write_text(file.read_text().replace("gamma = 0.99", "gamma = 0.5"))
    assert main(["train", str(edited), "--run", str(theirs.path), "--resume"]) == 2
    assert f"has other settings than {edited}" in capsys.readouterr().err


def test_what_cannot_be_gone_on_with_stays_as_it_is(finished, tmp_path, capsys):
    folder = shutil.copytree(zoo.find("breakout-cfc"), tmp_path / "policy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["train", "breakout-cfc", "--run", str(folder), "--resume"]) == 2
    assert "is a saved policy, not a run folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    run = shutil.copytree(finished.path, tmp_path / "run")
    assert main(["train", "pong-ltc", "--run", str(run), "--resume"]) == 2
    assert "is a run of 'pong-cfc', not of 'pong-ltc'" in capsys.readouterr().err
    assert main(["train", "--run", str(run), "--resume", "--steps", str(ROLLOUT)]) == 2
    assert f"has done {4 * ROLLOUT} steps, more than {ROLLOUT}" in capsys.readouterr().err
    assert read_recipe(run / "recipe.toml") == SMALL_RECIPE
    assert main(["train", "--resume"]) == 2
    assert "which run? name its folder" in capsys.readouterr().err


def test_where_the_policy_goes_is_checked_before_the_training(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    breakout = shutil.copytree(zoo.find("breakout-cfc"), tmp_path / "breakout")
    for place, message in ((file, "cannot write"), (breakout, "holds a policy for breakout")):
        options = ["--run", str(tmp_path / "run"), "--save", str(place), *SMALL]
        assert main(["train", "pong-cfc", *options]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    recipe = replace(SMALL_RECIPE, environment=Environment(game="breakout", num_envs=2))
    RunFolder.create(tmp_path / "run", recipe)  # whose game a resumption without a name must know
    options = ["--run", str(tmp_path / "run"), "--resume", "--save", str(breakout)]
    assert main(["train", *options]) == 0


def test_an_unwritable_run_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code = main(["train", "pong-cfc", "--run", str(tmp_path / "file" / "run"), *SMALL])
    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_from_a_policy_starts_with_its_weights(finished, tmp_path):
    start = replace(SMALL_RECIPE, start=str(finished.policy), steps=2 * ROLLOUT)
    run = RunFolder.create(tmp_path / "run", start)
    train(run, progress=False)  # all of it the critic's warm-up
    ours, theirs = (saved_policy.load(r.policy).network for r in (run, finished))
    theirs = dict(theirs.named_parameters())
    moved = {n for n, p in ours.named_parameters() if not torch.equal(p, theirs[n])}
    assert moved == {"value_net.weight", "value_net.bias"}
    assert read_recipe(run.policy / "recipe.toml").start == str(finished.policy)


def test_a_run_refuses_to_start_from_another_network(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "pong-cfc", "--from", str(finished.policy)]) == 2
    assert "does not fit the recipe" in capsys.readouterr().err
    assert main(["train", "pong-cfc", "--from", "pong-cf", "--run", "other"]) == 2
    assert "did you mean 'pong-cfc'" in capsys.readouterr().err
    corrected = ["train", "pong-cfc", "--run", "other", *SMALL, "--steps", str(ROLLOUT)]
    assert main(corrected) == 0
