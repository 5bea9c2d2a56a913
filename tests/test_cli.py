"""The command line: help that teaches, mistakes in one line, exit codes."""

import subprocess
import sys

import pytest

from ncp_agents.cli import main
from ncp_agents.recipe import Recipe, to_toml


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "command 'trian' is unknown; did you mean 'train'"),
        (["train", "pnog-cfc"], "policy 'pnog-cfc' is unknown; did you mean 'pong-cfc'"),
        (["train"], "which policy?"),
        (["train", "pong-cfc", "--stepz", "3"], "--stepz, 3; did you mean --steps?"),
        (["train", "pong-cfc", "--steps", "many"], "--steps: invalid literal for int()"),
        (["train", "pong-cfc", "--steps", "0"], "steps is 0, expected >= 1"),
        (["train", "pong-cfc", "--ppo.gamma", "3"], "gamma is 3.0, expected 0.0 to 1.0"),
        (["train", "pong-cfc", "--environment.game", "pnog"], "did you mean 'pong'"),
        (["train", "pong-cfc", "--circuit.wiring", "AutoNPC"], "invalid choice 'AutoNPC'"),
        (["train", "none.toml"], "there is no recipe none.toml"),
        (["train", "pong-cfc", "--run", "{tmp}", "--resume"], "is not a run folder"),
        (["train", "pong-cfc", "--run", "{tmp}/full"], "exists already; add --resume"),
        (["train", "{tmp}/wrong.toml"], "steps is 'x' (str), expected int"),
        (["evaluate", "pong-cfx"], "did you mean 'pong-cfc'"),
        (["evaluate", "{tmp}"], "is not a saved policy: it lacks recipe.toml"),
        (["evaluate"], "which policy?"),
        (["evaluate", "pong-cfc", "--protocol", "v6"], "invalid choice 'v6'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    (tmp_path / "wrong.toml").write_text("steps = 'x'")
    assert main([a.format(tmp=tmp_path) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "wrong.toml"]


def test_a_reader_that_goes_away_is_no_error():
    command = [sys.executable, "-m", "ncp_agents", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + 13


def test_resume_refuses_other_settings(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(to_toml(Recipe()))
    options = ["--run", str(tmp_path), "--resume", "--ppo.gamma", "0.5"]
    assert main(["train", "pong-cfc", *options]) == 2
    assert "--resume takes only --steps" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "evaluate", "policies", "wiring"])
def test_help_explains_each_option_with_its_default(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "usage: ncp-agents" in text
    if command == "train":
        for expected in ("--ppo.learning-rate", "discount a step", "(default: 0.99)"):
            assert expected in text


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
