"""Scripts end to end in a process of their own, small; the slowest benchmarks are only started."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ncp_agents.agents.recipe import read_recipe
from ncp_agents.agents.saved_policy import RECIPE, build
from ncp_agents.agents.zoo import find
from ncp_agents.datasets.demonstrations import Demonstrations
from ncp_agents.evaluation.scores import read_scores
from ncp_agents.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "scripts").rglob("[a-z]*.py")
)


def run(script: str, *options: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_the_script(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_train_and_evaluate_what_was_trained(tmp_path):
    done = run(
        "scripts/train.py",
        "pong-cfc",
        *("--steps", "256", "--run", "run", "--save", "policies/tiny"),
        *("--schedule.eval-every", "0"),
        *("--environment.num-envs", "4", "--ppo.n-steps", "32", "--ppo.batch-size", "64"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "256 steps in" in done.stdout
    done = run("scripts/evaluate.py", "policies/tiny", "--episodes", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = read_scores(tmp_path / "policies/tiny/scores.json")["v4"]
    assert len(scores.returns) == 2
    assert all(-21 <= score <= 21 for score in scores.returns)


def test_demo_records_clones_and_films_both(tmp_path):
    options = ("--episodes", "1", "--demos", "2", "--epochs", "1")
    for _ in range(2):  # the second replaces what the first left
        done = run("scripts/demo.py", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for name in ("teacher", "clone"):
            assert (tmp_path / "demo" / f"{name}.mp4").stat().st_size > 10_000
            assert len(read_scores(tmp_path / "demo" / f"{name}.json")["v4"].returns) == 1
        assert len(Demonstrations(tmp_path / "demo/demos").entries) == 2
        assert "clone a new network" in done.stdout


def test_demo_deletes_only_what_a_demo_made(tmp_path):
    theirs = tmp_path / "clone" / "recipe.toml"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    done = run("scripts/demo.py", "--out", ".", cwd=tmp_path)
    assert done.returncode == 2
    assert "--out" in done.stderr
    assert theirs.read_text() == "mine"


@pytest.mark.parametrize("option", ["--epochs", "--demos", "--episodes"])
def test_a_demo_that_cannot_be_leaves_the_earlier_one(option, tmp_path):
    kept = tmp_path / "demo" / "demos" / "dataset.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("earlier")
    (tmp_path / "demo" / ".demo").write_text("")
    done = run("scripts/demo.py", option, "0", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"demo: e\w+ is 0.*\n", done.stderr)
    assert kept.read_text() == "earlier"


def test_pong_from_scratch_reads_a_finished_run_again(tmp_path):
    options = ("--seeds", "1", "--variants", "wired", "--steps", "20480")
    for _ in range(2):
        done = run("scripts/benchmarks/pong_from_scratch.py", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "not reached" in done.stdout
    assert (tmp_path / "runs/pong_from_scratch.png").exists()


def test_kinds_as_large_as_the_circuit_train_by_the_same_recipe(tmp_path):
    options = ("--games", "pong", "--seeds", "1", "--steps", "20480", "--kinds")
    done = run("scripts/benchmarks/lstm.py", *options, "lstm-size", "mixed-memory", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lstm, mixed = (
        build(RunFolder.open(tmp_path / f"runs/pong-cfc-{kind}-seed1").recipe)
        for kind in ("lstm-size", "mixed-memory")
    )
    circuit = build(read_recipe(find("pong-cfc") / RECIPE))
    size = lambda part: sum(p.numel() for p in part.parameters())  # noqa: E731
    assert size(lstm.circuit) == pytest.approx(size(circuit.circuit), rel=0.03)
    assert size(mixed) == pytest.approx(size(circuit), rel=0.03)
    assert mixed.circuit.use_mixed
    assert (tmp_path / "runs/lstm.png").exists()


def test_a_variant_of_tuning_differs_in_one_setting(tmp_path):
    options = ("--variants", "neurons-32", "--steps", "6144")
    done = run("scripts/benchmarks/tuning.py", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"neurons-32 +│ +\d+\.\d +│ +\d+\.\d +│ +0\.0\d\d ", done.stdout)
    changed = RunFolder.open(tmp_path / "runs/breakout-cfc-tuning-neurons-32-seed1").recipe
    recipe = read_recipe(find("breakout-cfc") / RECIPE)
    assert (changed.circuit.units, changed.circuit.motor_neurons) == (32, 8)
    assert (changed.ppo, changed.policy) == (recipe.ppo, recipe.policy)


def test_cartpole_without_velocities_runs():
    done = run(
        "scripts/benchmarks/cartpole_no_vel.py",
        *("--seeds", "1", "--steps", "2048", "--eval-every", "1024", "--eval-episodes", "1"),
    )
    assert done.returncode == 0, done.stderr
    assert "circuit" in done.stdout
    assert "LSTM" in done.stdout


def test_throughput_runs():
    done = run("scripts/benchmarks/throughput.py", "--quick", "--threads", "1")
    assert done.returncode == 0, done.stderr
    for title in ("Training Pong", "Same encoder (NatureCNN on one frame), same PPO settings"):
        assert title in done.stdout
