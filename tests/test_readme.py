"""The README's code is true: its Python blocks run, its commands are known."""

import re
import shlex
from pathlib import Path

import pytest

from ncp_agents import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run_one_after_another(tmp_path, monkeypatch):
    """In one namespace, as a reader would paste them, and in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    assert blocks("python")
    namespace: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    env = namespace["env"]
    env.close()  # pyright: ignore[reportAttributeAccessIssue]


COMMANDS = [
    shlex.split(line, comments=True)
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("ncp-agents ")
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_understood(command, capsys):
    """With --help behind them the options are read, and nothing is trained."""
    _, name, *options = command
    options = [option for option in options if option != "my-recipe.toml"]
    if name == "train" and len(options) < len(command) - 2:
        options.insert(0, "pong-cfc")
    with pytest.raises(SystemExit) as ended:
        cli.main([name, *options, "--help"])
    assert ended.value.code == 0


def test_files_and_make_targets_exist():
    for path in re.findall(r"\b(?:scripts|policies|ncp_agents|docs)/[\w/.-]+\b", README):
        if path != "policies/mine":
            assert (ROOT / path).exists(), path
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert all(f"\n{target}:" in makefile for target in targets)
