"""The command line: help that teaches, mistakes in one line, exit codes."""

import os
import subprocess
import sys

import pytest

from ncp_agents.agents.recipe import Recipe, to_toml
from ncp_agents.cli import main
from ncp_agents.cli.console import Terminal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "command 'trian' is unknown; did you mean 'train'"),
        (["train", "pnog-cfc"], "policy 'pnog-cfc' is unknown; did you mean 'pong-cfc'"),
        (["train"], "which policy?"),
        (["train", "pong-cfc", "--stepz", "3"], "--stepz, 3; did you mean --steps?"),
        (["train", "pong-cfc", "--steps", "many"], "--steps: invalid literal for int()"),
        (["train", "pong-cfc", "--steps", "0"], "steps is 0"),
        (["train", "pong-cfc", "--ppo.gamma", "3"], "gamma is 3.0"),
        (["train", "pong-cfc", "--environment.game", "pnog"], "did you mean 'pong'"),
        (["train", "pong-cfc", "--circuit.wiring", "AutoNPC"], "invalid choice 'AutoNPC'"),
        (["train", "none.toml"], "none.toml"),
        (["train", "pong-cfc", "--run", "{tmp}", "--resume"], "is not a run folder"),
        (["train", "pong-cfc", "--run", "{tmp}/full"], "exists already; add --resume"),
        (["train", "{tmp}/wrong.toml"], "steps is 'x'"),
        (
            ["train", "pong-cfc", "--cloning.epochs", "3"],
            "--cloning.epochs has no effect in ncp-agents train; leave it out",
        ),
        (["train", "pong-cfc", "--ppo.fine-tuning", "1"], "--ppo.fine-tuning has no effect"),
        (
            ["train", "pong-cfc", "--from", "pong-cfc", "--ppo.ent-coef", "0"],
            "--ppo.ent-coef has no effect in ncp-agents train --from",
        ),
        (
            ["clone", "pong-cfc", "--ppo.learning-rate", "1e-4"],
            "--ppo.learning-rate has no effect in ncp-agents clone",
        ),
        (
            ["clone", "pong-cfc", "--cloning.dagger-games", "3"],
            "--cloning.dagger-games has no effect in ncp-agents clone without --dagger",
        ),
        (["evaluate", "pong-cfx"], "did you mean 'pong-cfc'"),
        (["evaluate", "{tmp}"], "is not a saved policy: it lacks recipe.toml"),
        (["evaluate"], "which policy?"),
        (["evaluate", "pong-cfc", "--protocol", "v6"], "invalid choice 'v6'"),
        (["evaluate", "pong-cfc", "--noise"], "--noise lacks its strengths"),
        (["wiring", "--circuit.cell", "ltc"], "--circuit.cell has no effect in ncp-agents wiring"),
        (["wiring", "--circuit.units", "100000000"], "units is 100000000"),
        (["evaluate", "{tmp}/huge"], "policy.features is 100000000000000"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    (tmp_path / "wrong.toml").write_text("steps = 'x'")
    (tmp_path / "huge").mkdir()
    (tmp_path / "huge" / "recipe.toml").write_text("[policy]\nfeatures = 100000000000000")
    (tmp_path / "huge" / "weights.safetensors").write_text("")
    assert main([a.format(tmp=tmp_path) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "huge", "wrong.toml"]


def test_paths_are_printed_as_they_are(capsys):
    Terminal().print("runs/[bold]x[/b]:smile: – …")
    assert capsys.readouterr().out == "runs/[bold]x[/b]:smile: – …\n"


def test_a_terminal_without_dashes_shows_the_rest():
    command = [sys.executable, "-m", "ncp_agents", "policies"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "pong-cfc" in done.stdout


@pytest.mark.parametrize("command", ["--help", "policies"])  # printed by Python, and by rich
def test_a_reader_that_goes_away_is_no_error(command):
    command = [sys.executable, "-m", "ncp_agents", command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + 13


def test_resume_refuses_other_settings(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(to_toml(Recipe()))
    options = ["--run", str(tmp_path), "--resume", "--ppo.gamma", "0.5"]
    assert main(["train", "pong-cfc", *options]) == 2
    assert "--resume takes only --steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train", ("--ppo.learning-rate", "discount factor per step", "(default: 0.99)")),
        ("clone", ("--cloning.epochs", "passes over the demos", "(default: 40)")),
        ("record", ("--temperature", "(default: 1.0)")),
        ("evaluate", ("--episodes", "whole games", "(default: 30)")),
        ("wiring", ("--inputs", "of the circuit", "(default: 16)")),
        ("policies", ("List the saved policies",)),
    ],
)
def test_help_explains_each_option_with_its_default(command, expected, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "usage: ncp-agents" in text
    for words in expected:
        assert words in text


def test_list_shows_the_policies(capsys):
    assert main(["train", "--list"]) == 0
    assert "pong-cfc" in capsys.readouterr().out
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--circuit.wiring", "dense"], "a dense circuit has no wiring to draw"),
        (["--circuit.units", "10"], "take at least 19 units"),
        (["--inputs", "0"], "input_dim is 0"),
        (["--output", "circuit.pgn"], "format 'pgn' is unknown; did you mean 'png'"),
    ],
)
def test_a_wiring_that_cannot_be_drawn_is_one_line(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["wiring", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_usage_without_a_command(capsys):
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert "ncp-agents COMMAND" in capsys.readouterr().out
