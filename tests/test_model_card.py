"""Model cards agree with the policy's files, and change only with them."""

import pytest
import torch

from ncp_agents.agents.recipe import Circuit, Recipe
from ncp_agents.agents.saved_policy import build, save
from ncp_agents.agents.zoo import zoo
from ncp_agents.cli.report import write_report
from ncp_agents.envs.perturbations import Perturbation
from ncp_agents.errors import UserError
from ncp_agents.evaluation.scores import Scores, write_scores


def scores(returns, **changes):
    values = {
        "game": "pong",
        "protocol": "v4",
        "deterministic": True,
        "seed": 3,
        "num_envs": len(returns),
        "returns": returns,
        "lengths": (100,) * len(returns),
        "actions": {"NOOP": 300, "FIRE": 100},
    }
    return Scores(**values | changes)


def saved(folder, **circuit):
    torch.manual_seed(0)
    recipe = Recipe(name="mine", steps=5000, circuit=Circuit(**circuit))
    save(folder, recipe, build(recipe))
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_card_agrees_with_the_files(tmp_path):
    folder = saved(tmp_path / "mine")
    path = folder / "scores.json"
    write_scores(path, scores((1.0, 5.0, 6.0)))
    for perturbation in (
        Perturbation("noise", 0.1),
        Perturbation("frame_skip_jitter", 2),
        Perturbation("frame_skip_jitter", 2, timespans=True),
    ):
        write_scores(path, scores((1.0, 2.0, 3.0), perturbation=perturbation))
    written = write_report(folder)
    assert {p.name for p in written} == {
        "README.md",
        "wiring.png",
        "perturbations-v4-deterministic.png",
    }
    text = (folder / "README.md").read_text()
    for part in (
        "# mine\n",
        "29 inter → 19 command → 16 motor neurons → 6 actions",
        "| v4 | greedy | 3 | 4.0 | 1.0 … 6.0 | 5.0 (1.0 … 6.0) |",
        "| noise | 0.1 | 3 | 2.0 |",
        "| frame skip jitter, with timespans | 2 | 3 | 2.0 |",
        "NOOP 75 %, FIRE 25 %",
        "--protocol v4 --deterministic --episodes 3 --seed 3 --frame-skip-jitter 2 --noise 0.1\n",
        "arXiv:1511.06581",
        "5,000 steps, seed 1",
    ):
        assert part in text
    assert "curve.png" not in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (folder / line.partition("(")[2].rstrip(")")).is_file()


def test_writing_again_changes_nothing(tmp_path):
    folder = saved(tmp_path / "mine")
    write_scores(
        folder / "scores.json", scores((1.0, 2.0), perturbation=Perturbation("noise", 0.1))
    )
    write_scores(folder / "scores.json", scores((1.0, 2.0)))
    write_report(folder)
    before = contents(folder)
    write_report(folder)
    assert contents(folder) == before
    write_scores(folder / "scores.json", scores((1.0, 3.0, 2.0), num_envs=2))
    write_report(folder)
    assert contents(folder)["README.md"] != before["README.md"]
    assert "--episodes 3 --seed 3 --num-envs 2\n" in (folder / "README.md").read_text()


def test_a_dense_circuit_has_no_wiring_to_show(tmp_path):
    folder = saved(tmp_path / "mine", wiring="dense", units=8)
    write_scores(folder / "scores.json", scores((1.0, 2.0)))
    assert [path.name for path in write_report(folder)] == ["README.md"]
    text = (folder / "README.md").read_text()
    assert "8 CfC neurons that are fully connected" in text
    assert "wiring.png" not in text


def test_a_clone_is_reproduced_by_cloning(tmp_path):
    folder = saved(tmp_path / "mine", wiring="FullyConnected", units=24, motor_neurons=8)
    (folder / "cloning.csv").write_text("epoch,seconds\n1,9.0\n")
    write_scores(folder / "scores.json", scores((1.0, 2.0)))
    write_report(folder)
    text = (folder / "README.md").read_text()
    assert "ncp-agents clone recipe.toml --demos DEMOS --save .\n" in text
    assert "steps, seed" not in text
    assert "8 motor and 16 inter neurons → 6 actions" in text


def test_without_scores_there_is_no_card(tmp_path):
    folder = saved(tmp_path / "mine")
    before = contents(folder)
    with pytest.raises(UserError, match="ncp-agents evaluate"):
        write_report(folder)
    assert contents(folder) == before


@pytest.mark.parametrize(("name", "folder"), sorted(zoo().items()))
def test_cards_of_the_zoo_are_up_to_date(name, folder, tmp_path):
    copy = tmp_path / name
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    write_report(copy)
    assert contents(copy)["README.md"] == contents(folder)["README.md"]
