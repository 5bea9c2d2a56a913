"""Imports inside the package run one way; every import statement is read, lazy ones included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PORTS = {"torch", "keras", "tf", "mini_keras", "mlx"}
FOUNDATION = {
    *("checks", "errors", "files", "frameworks", "names", "stopping", "terminal"),
    *("equations", "wirings"),
}
SB3 = FOUNDATION | {"torch", "envs", "datasets", "recipe", "sb3"}
# Each may import those before it.
JOBS = (
    "saved_policy",
    "playing",
    "parallel_rollouts",
    "progress_csv",
    "run_folder",
    "scores",
    "score_tables",
    "rendering",
    "watching",
    "evaluation",
    "comparison",
    "recording",
    "cloning",
    "dagger",
    "training",
    "report",
    "export",
    "sb3_zip",
    "zoo",
)

# What each part of the package may import from it. A new file or folder needs a line here.
MAY_IMPORT = {
    "__init__": {"frameworks"},
    "errors": set(),
    "checks": {"names"},
    "files": {"errors"},
    "frameworks": set(),
    "stopping": set(),
    "terminal": set(),
    "names": {"errors"},
    "equations": FOUNDATION,
    "wirings": {"checks", "errors", "names", "wirings"},
    "torch": FOUNDATION | {"torch"},
    "keras": FOUNDATION | {"keras"},
    "mlx": FOUNDATION | {"mlx"},
    "tf": FOUNDATION | {"keras", "tf"},
    "mini_keras": FOUNDATION | {"keras", "mini_keras"},
    "envs": {"errors", "frameworks", "names", "envs"},
    "datasets": {"errors", "files", "names", "envs", "datasets"},
    "recipe": {"checks", "errors", "names", "envs", "datasets", "recipe"},
    "sb3": SB3,
    **{job: SB3 | {*JOBS[: place + 1]} for place, job in enumerate(JOBS)},
    "convert": SB3 | PORTS | {"saved_policy", "convert"},
    "cli": SB3 | PORTS | {*JOBS, "convert", "cli"},
    "__main__": {"cli"},
}
# Inside a port: cells and helpers (0), then the time loop (1), then the layers (2).
RANK_IN_PORT = {
    "scan": 1,
    "kernels": 1,
    "sequence_layer": 2,
    "cfc": 2,
    "ltc": 2,
    "from_ncps": 2,
    "weights": 2,
    "__init__": 2,
}


def modules_imported(source, package, is_module):
    """Dotted names of the ncp_agents modules that `source`, a module of `package`, imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if is_module(name) else base for name in names]
        else:
            continue
        yield from (name for name in targets if name.split(".")[0] == "ncp_agents")


def violations(path, source, is_module):
    """What is wrong with the imports of one file; path is relative, ncp_agents/torch/cfc.py."""
    parts = path.with_suffix("").parts[1:]
    part = parts[0]
    if part not in MAY_IMPORT:
        return [f"{path} has no place in the order yet; add it to MAY_IMPORT"]
    package = ".".join(path.parent.parts)
    found = []
    for name in modules_imported(source, package, is_module):
        if name == "ncp_agents":  # the version
            continue
        target = name.split(".")[1:]
        if target[0] not in MAY_IMPORT[part]:
            found.append(f"{path} imports {name}, which stands to its right")
        elif part in PORTS and target[0] == part:
            own, other = (RANK_IN_PORT.get((p[1:] or ["__init__"])[0], 0) for p in (parts, target))
            if other > own:
                found.append(f"{path} imports {name}, which stands to its right in the port")
    return found


def is_file_in_package(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_imports_run_one_way():
    files = sorted((ROOT / "ncp_agents").rglob("*.py"))
    assert files
    found = []
    for file in files:
        path = file.relative_to(ROOT)
        found += violations(path, file.read_text(encoding="utf-8"), is_file_in_package)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("names.py", "from ncp_agents.wirings import NCP"),
        ("names.py", "import ncp_agents.cli"),
        ("wirings/base.py", "from ..torch import CfC"),
        ("wirings/base.py", "def f():\n    from ncp_agents import sb3"),
        ("torch/cfc.py", "from ncp_agents.keras.cfc import CfC"),
        ("torch/cfc_cell.py", "from ncp_agents.torch import cfc"),
        ("torch/cfc_cell.py", "from .scan import scan"),
        ("torch/scan.py", "from ncp_agents.torch import CfC"),
        ("torch/kernels/cpu.py", "from ..cfc import CfC"),
        ("envs/atari.py", "from ncp_agents.datasets.episode_file import Episode"),
        ("sb3/policies.py", "from ncp_agents.agents.saved_policy import load"),
        ("scores.py", "from ncp_agents.rendering.learning_curve import draw_curve"),
        ("unheard_of.py", ""),
    ],
)
def test_this_check_can_fail(path, source):
    assert violations(Path("ncp_agents", path), source, is_known)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cli.py", "from ncp_agents import __version__"),
        ("wirings/ncp.py", "from ncp_agents.wirings.base import SeededWiring\nimport torch"),
        ("torch/cfc.py", "from .scan import scan\nfrom . import cfc_cell"),
        ("torch/__init__.py", "from ncp_agents.torch.cfc import CfC"),
        ("torch/kernels/cpu.py", "from ..scan import scan"),
        ("tf/__init__.py", "from ncp_agents.keras import CfC"),
        ("evaluation.py", "from ncp_agents.rendering import video"),
    ],
)
def test_this_check_can_pass(path, source):
    assert violations(Path("ncp_agents", path), source, is_known) == []


def is_known(name):
    """Modules of the examples above, whether or not their files exist."""
    return name in {"ncp_agents.sb3", "ncp_agents.torch.cfc", "ncp_agents.torch.cfc_cell"}
