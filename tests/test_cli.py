"""The command line: help, mistakes, exit codes."""

import os
import subprocess
import sys

import pytest

from ncp_agents.agents.recipe import Recipe, to_toml
from ncp_agents.cli import COMMANDS, main
from ncp_agents.cli.console import Terminal


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["trian"], "'train'"),
        (["train", "pnog-cfc"], "'pong-cfc'"),
        (["train"], "which policy?"),
        (["train", "--resume"], "which run?"),
        (["train", "none.toml"], "none.toml"),
        (["train", "{tmp}/wrong.toml"], "steps"),
        (["train", "pong-cfc", "--steps", "0"], "steps"),
        (["train", "pong-cfc", "--run", "{tmp}", "--resume"], "not a run folder"),
        (["train", "pong-cfc", "--run", "{tmp}/full"], "--resume"),
        (["clone"], "which policy?"),
        (["clone", "pong-cfc"], "--demos"),
        (["clone", "pong-cfc", "--demos", "x", "--dagger", "3"], "--teacher"),
        (["record"], "which policy?"),
        (["record", "pong-cfx"], "'pong-cfc'"),
        (["evaluate"], "which policy?"),
        (["evaluate", "pong-cfx"], "'pong-cfc'"),
        (["evaluate", "{tmp}"], "recipe.toml"),
        (["report", "pong-cfx"], "'pong-cfc'"),
        (["export", "pong-cfx"], "'pong-cfc'"),
        (["plot"], "which runs?"),
        (["wiring", "--circuit.wiring", "dense"], "dense"),
        (["wiring", "--circuit.units", "10"], "19 units"),
        (["wiring", "--inputs", "0"], "input_dim"),
        (["wiring", "--output", "{tmp}/circuit.pgn"], "'png'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, fact, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    (tmp_path / "wrong.toml").write_text("steps = 'x'")
    assert main([a.format(tmp=tmp_path) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert fact in error
    assert len(error.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "wrong.toml"]


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["train", "pong-cfc", "--stepz", "3"], "--steps"),
        (["train", "pong-cfc", "--steps", "many"], "--steps"),
        (["train", "pong-cfc", "--ppo.gamma", "3"], "gamma"),
        (["train", "pong-cfc", "--environment.game", "pnog"], "'pong'"),
        (["train", "pong-cfc", "--circuit.wiring", "AutoNPC"], "'AutoNPC'"),
        (["evaluate", "pong-cfc", "--protocol", "v6"], "'v6'"),
    ],
)
def test_a_mistake_in_an_option_is_exit_code_2(arguments, fact, capsys):
    assert main(arguments) == 2
    assert fact in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["trian"], ["train", "pnog-cfc"], ["evaluate", "pnog-cfc"], ["policies", "-h"]],
)
def test_help_and_misspelt_names_are_answered_without_torch(arguments):
    code = f"import sys; from ncp_agents.cli import main; main({arguments}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()


def test_paths_are_printed_as_they_are(capsys):
    Terminal().print("runs/[bold]x[/b]:smile: – …")
    assert capsys.readouterr().out == "runs/[bold]x[/b]:smile: – …\n"


def test_a_terminal_without_dashes_shows_the_rest():
    command = [sys.executable, "-m", "ncp_agents", "policies"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "pong-cfc" in done.stdout


@pytest.mark.parametrize("command", ["--help", "policies"])  # printed by Python, and by rich
def test_a_broken_pipe_is_no_error(command):
    command = [sys.executable, "-m", "ncp_agents", command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + 13


def test_resume_refuses_other_settings(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(to_toml(Recipe()))
    options = ["--run", str(tmp_path), "--resume", "--ppo.gamma", "0.5"]
    assert main(["train", "pong-cfc", *options]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_each_command_and_option(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "usage: ncp-agents" in text
    assert "None" not in text
    for words in {
        "train": ("--ppo.learning-rate", "(default: 0.001)"),
        "clone": ("--cloning.epochs", "(default: 40)"),
        "record": ("--temperature", "(default: 1.0)"),
        "evaluate": ("--show-circuit", "greedy actions"),
    }.get(command, ()):
        assert words in text


def test_policies_are_listed(capsys):
    assert main(["policies"]) == 0
    assert "pong-cfc" in capsys.readouterr().out


def test_a_wiring_is_drawn(tmp_path, capsys):
    picture = tmp_path / "circuit.png"
    assert main(["wiring", "pong-cfc", "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "<AutoNCP units=64, output_size=16" in capsys.readouterr().out
    options = ["--circuit.units", "10", "--circuit.motor-neurons", "3", "--inputs", "4"]
    assert main(["wiring", *options, "--output", str(tmp_path / "circuit.svg")]) == 0
    assert "input_dim=4" in capsys.readouterr().out


def test_usage_without_a_command(capsys):
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert "ncp-agents COMMAND" in capsys.readouterr().out
