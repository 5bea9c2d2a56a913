"""`import ncp_agents` loads no framework; the wirings load NumPy and nothing larger."""

import subprocess
import sys

import pytest

FRAMEWORKS = ["torch", "tensorflow", "keras", "jax", "mlx"]
LIBRARIES = ["gymnasium", "ale_py", "stable_baselines3", "matplotlib", "networkx", "scipy"]
HEAVY = [*FRAMEWORKS, *LIBRARIES]


def heavy_modules_after(statement):
    """Which of HEAVY a fresh interpreter has loaded after `statement`."""
    code = f"import sys; {statement}; print(*(m for m in {HEAVY} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


@pytest.mark.parametrize("module", ["", ".registry", ".wirings", ".layers.reference"])
def test_import_loads_no_framework(module):
    assert heavy_modules_after(f"import ncp_agents{module}") == []


def test_the_package_itself_does_not_even_need_numpy():
    code = "import sys, ncp_agents; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_this_check_can_fail():
    assert "networkx" in heavy_modules_after("import networkx")
