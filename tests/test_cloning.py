"""Cloning end to end: real games, learnt from, killed and resumed."""

import csv
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

from ncp_agents.agents import saved_policy
from ncp_agents.agents.recipe import Circuit, Cloning, Environment, Policy, Recipe, Schedule
from ncp_agents.cli import main
from ncp_agents.datasets.atari_cloning import SHIPPED
from ncp_agents.datasets.demonstrations import Demonstrations
from ncp_agents.errors import NonFiniteError, UserError
from ncp_agents.evaluation.evaluate import evaluate
from ncp_agents.imitation.cloning import EVALUATION_SEED, _Cloning, best_return_of, clone
from ncp_agents.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

PONG = SHIPPED / "pong"
RECIPE = Recipe(
    policy=Policy(features=8),
    circuit=Circuit(units=8, motor_neurons=2, wiring="FullyConnected"),
    cloning=Cloning(epochs=2, sequences=64, sequence_length=64, eval_every=0),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    run = RunFolder.create(tmp_path_factory.mktemp("clone") / "run", RECIPE)
    clone(run, [Demonstrations(PONG)], progress=False)
    return run


def rows(run: RunFolder) -> list[dict[str, str]]:
    with (run.path / "cloning.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_cloning_leaves_everything_a_person_wants(finished):
    assert [row["epoch"] for row in rows(finished)] == ["1", "2"]
    assert float(rows(finished)[1]["train_loss"]) < float(rows(finished)[0]["train_loss"])
    policy = saved_policy.load(finished.policy)
    assert policy.recipe == RECIPE
    assert finished.curve.read_bytes().startswith(b"\x89PNG")


def test_stopped_and_resumed_it_learns_the_same(finished, tmp_path):
    run = RunFolder.create(tmp_path / "run", RECIPE)
    calls = iter([False, True])  # after the first epoch
    assert (
        clone(run, [Demonstrations(PONG)], progress=False, stopped=lambda: next(calls)).epoch == 1
    )
    clone(run, [Demonstrations(PONG)], progress=False, resume=True)
    for ours, theirs in zip(rows(run), rows(finished), strict=True):
        assert {**ours, "seconds": ""} == {**theirs, "seconds": ""}
    one, other = (saved_policy.load(r.policy).network for r in (run, finished))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_resume_refuses_other_demos(finished, tmp_path):
    shutil.copytree(PONG, tmp_path / "fewer")
    fewer = Demonstrations(tmp_path / "fewer")
    fewer.drop(fewer.entries[0].file)
    with pytest.raises(UserError, match="is of other demos: 5 games to learn from and 1 held out"):
        clone(finished, [fewer], progress=False, resume=True)


def test_it_ends_where_the_validation_loss_no_longer_falls(tmp_path):
    options = replace(RECIPE.cloning, epochs=9, patience=1, learning_rate=1e-30)
    run = RunFolder.create(tmp_path / "run", replace(RECIPE, cloning=options))
    assert clone(run, [Demonstrations(PONG)], progress=False).epoch == 2


def test_weights_that_are_no_numbers_end_it_and_leave_what_was_saved(tmp_path):
    options = replace(RECIPE.cloning, epochs=3, learning_rate=1e38, max_grad_norm=1e9)
    run = RunFolder.create(tmp_path / "run", replace(RECIPE, cloning=options))
    with pytest.raises(NonFiniteError, match=r"no longer a number in epoch 1; .*--cloning.lea"):
        clone(run, [Demonstrations(PONG)], progress=False)
    assert not list(run.path.rglob("*.safetensors"))


def test_the_policy_with_the_best_return_is_kept(tmp_path):
    options, schedule = replace(RECIPE.cloning, eval_every=1), Schedule(eval_episodes=1)
    run = RunFolder.create(tmp_path / "run", replace(RECIPE, cloning=options, schedule=schedule))
    best = clone(run, [Demonstrations(PONG)], progress=False).best_return
    assert best == best_return_of(run) == max(float(row["eval_return"]) for row in rows(run))
    played = evaluate(saved_policy.load(run.policy), episodes=1, seed=EVALUATION_SEED)
    assert played.mean == best


def test_class_weights_make_rare_actions_count_as_much(tmp_path):
    recipe = replace(RECIPE, cloning=replace(RECIPE.cloning, epochs=1, class_weights=True))
    run = RunFolder.create(tmp_path / "run", recipe)
    cloning = _Cloning(run, [Demonstrations(PONG)], progress=False, stopped=lambda: False)
    assert cloning.weights is not None
    (games,) = cloning.train_games
    actions = np.concatenate([games.demos.read(index).actions for index in games.indices])
    counts = torch.from_numpy(np.bincount(actions, minlength=6))
    torch.testing.assert_close(cloning.weights * counts, torch.full((6,), len(actions) / 6))
    cloning.run_to_end(resume=False)
    assert saved_policy.load(run.policy).recipe == recipe


def test_kill_9_leaves_a_run_that_resumes(tmp_path):
    script = str(Path(__file__).parent.parent / "scripts" / "clone.py")
    options = ["pong-cfc", "--demos", str(PONG), "--run", str(tmp_path / "run"), "--threads", "1"]
    options += ["--policy.features", "8", "--circuit.units", "12", "--circuit.motor-neurons", "2"]
    options += ["--cloning.eval-every", "0", "--cloning.sequences", "64"]
    process = subprocess.Popen([sys.executable, script, *options], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = RunFolder.open(tmp_path / "run")
    known = len(rows(run)) if (run.path / "cloning.csv").exists() else 0
    run = RunFolder(
        run.path, replace(run.recipe, cloning=replace(run.recipe.cloning, epochs=known + 1))
    )
    done = clone(run, [Demonstrations(PONG)], progress=False, resume=True)
    assert done.epoch in (known + 1, known + 2)
    assert len(rows(run)) == done.epoch


def test_demos_of_another_kind_are_refused(tmp_path):
    for recipe, message in (
        (
            replace(RECIPE, environment=Environment(game="breakout")),
            "demos of pong, but the recipe",
        ),
        (replace(RECIPE, environment=Environment(frame_stack=4)), "recorded with frame_stack=1"),
        (
            replace(RECIPE, environment=Environment(protocol="v5")),
            r"sticky_actions=0.0, but .* 0.25",
        ),
    ):
        run = RunFolder.create(tmp_path / message[:9], recipe)
        with pytest.raises(UserError, match=message):
            clone(run, [Demonstrations(PONG)], progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "which network"),
        (["pong-cfc"], "which demos"),
        (["pong-cfc", "--demos", "nowhere"], "no demos in nowhere"),
        (["pong-cfc", "--demos", str(PONG), "--resume"], "is not a run folder"),
    ],
)
def test_mistakes_are_one_line(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["clone", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_resume_refuses_other_settings(finished, capsys):
    options = ["pong-cfc", "--demos", str(PONG), "--run", str(finished.path), "--resume"]
    assert main(["clone", *options, "--cloning.epochs", "9"]) == 2
    assert "has other settings than these" in capsys.readouterr().err
