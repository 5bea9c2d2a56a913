"""The README is true: its code runs, its commands exist, its scores are those of the zoo."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ncp_agents import cli
from ncp_agents.agents.saved_policy import load
from ncp_agents.agents.zoo import zoo
from ncp_agents.cli.parsing import parse, parse_with_recipe
from ncp_agents.evaluation.scores import scores_of
from ncp_agents.evaluation.statistics import interval

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"), ids=range(len(blocks("python"))))
def test_python_block_runs_by_itself(block, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr


COMMANDS = [
    shlex.split(line, comments=True)
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("ncp-agents ")
]


class Parsed(Exception):
    pass


@pytest.fixture
def parse_only(monkeypatch):
    """Commands end once their options are parsed."""

    def ending(function):
        def parse_and_end(*args, **kwargs):
            function(*args, **kwargs)
            raise Parsed

        return parse_and_end

    for command in cli.COMMANDS:
        module = import_module(f"ncp_agents.cli.{command}")
        for function in (parse, parse_with_recipe):
            if hasattr(module, function.__name__):
                monkeypatch.setattr(module, function.__name__, ending(function))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_parses(command, parse_only, tmp_path, monkeypatch):
    if "my-recipe.toml" in command:
        monkeypatch.chdir(tmp_path)
        shutil.copy(ROOT / "policies/pong-cfc/recipe.toml", "my-recipe.toml")
    with pytest.raises(Parsed):
        cli.main(command[1:])


def test_an_unknown_option_is_refused(parse_only, capsys):
    assert cli.main(["evaluate", "pong-cfc", "--show-circuits"]) == 2
    assert "--show-circuits" in capsys.readouterr().err


def test_files_and_make_targets_exist():
    folders = "scripts|policies|ncp_agents|docs|examples|tests"
    for path in re.findall(rf"\b(?:{folders})/[\w/.-]+\b", README):
        if path != "policies/mine":
            assert (ROOT / path).exists(), path
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert all(f"\n{target}:" in makefile for target in targets)


def test_links_have_targets():
    """In the README and the other pages; with a # the heading exists, too."""
    links = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
            target = page.parent / path
            assert target.exists(), f"{page.name}: {path}"
            if heading:
                titles = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
                assert heading in [title.lower().replace(" ", "-") for title in titles], heading
            links += 1
    assert links > 5


def test_scores_are_those_of_the_zoo():
    for name, folder in zoo().items():
        [row] = [line for line in README.splitlines() if line.startswith(f"| `{name}` |")]
        circuit, parameters, steps, mean, span = (cell.strip() for cell in row.split("|")[2:7])
        policy, scores = load(folder), scores_of(folder)["v4"]
        wired = "dense" if policy.recipe.circuit.wiring == "dense" else "wired"
        cell = {"cfc": "CfC", "ltc": "LTC"}[policy.recipe.circuit.cell]
        assert circuit == f"{policy.recipe.circuit.units} {wired} {cell}"
        assert parameters == f"{sum(each.numel() for each in policy.network.parameters()):,}"
        assert steps == f"{policy.recipe.steps / 1e6:g}M"
        digits = 0 if scores.mean >= 1000 else 1
        assert mean == f"{scores.mean:,.{digits}f}"
        low, high = interval(scores.returns)
        assert span == f"{low:,.{digits}f} … {high:,.{digits}f}"
