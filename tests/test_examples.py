"""Each example runs, small, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"
OPTIONS = {  # a small size, and a fact that the output states
    "act_with_saved_policy.py": (["--steps", "20"], "after 20 steps"),
    "time_series.py": (["--steps", "60"], "with timespans"),
    "train_with_sb3.py": (["--steps", "1024", "--episodes", "1"], "num_timesteps=1024"),
}


def test_every_example_is_listed():
    assert sorted(OPTIONS) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", OPTIONS)
def test_example_runs(name, tmp_path):
    options, fact = OPTIONS[name]
    run = subprocess.run(
        [sys.executable, EXAMPLES / name, *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert fact in run.stdout
