"""The Triton kernels equal plain torch, in Triton's interpreter or on a GPU."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")


def run(*arguments: str, **environment: str) -> None:
    """Run the comparison in a process of its own: Triton reads its switch as it is imported."""
    script = Path(__file__).with_name("compare_triton.py")
    result = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "circuits are equal" in result.stdout


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels themselves run below")
def test_interpreted_they_equal_plain_torch():
    run("cpu", TRITON_INTERPRET="1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_they_equal_plain_torch():
    run("cuda")
