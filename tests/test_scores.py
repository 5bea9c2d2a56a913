"""Scores: statistics, intervals, tables, and their file."""

import dataclasses
import itertools
import json
import math
import threading

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from ncp_agents.cli.tables import comparison_table, scores_table
from ncp_agents.envs.perturbations import Perturbation
from ncp_agents.errors import UserError
from ncp_agents.evaluation import scores as scores_module
from ncp_agents.evaluation.scores import Scores, read_scores, scores_of, write_scores
from ncp_agents.evaluation.statistics import interval, interval_of_seeds
from ncp_agents.files import sha256
from ncp_agents.schema import parse_json


def scores(returns=(1.0, 2.0, 3.0, 4.0), **changes):
    values = {
        "game": "pong",
        "protocol": "v4",
        "deterministic": False,
        "seed": 0,
        "num_envs": len(returns),
        "returns": tuple(returns),
        "lengths": tuple(100 + i for i in range(len(returns))),
        "actions": {"NOOP": 300, "FIRE": 100},
    }
    return Scores(**values | changes)


def shown(table, width=80):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_statistics_worked_out_by_hand():
    # mean 5; squares 16 + 9 + 4 + 0 + 1 + 1 + 4 + 25 = 60, std √(60 / 7);
    # the middle half is 3, 5, 6, 6
    result = scores((1.0, 2.0, 3.0, 5.0, 6.0, 6.0, 7.0, 10.0), lengths=(10, 20) * 4)
    assert (result.mean, result.median, result.interquartile_mean) == (5.0, 5.5, 5.0)
    assert result.std == pytest.approx(math.sqrt(60 / 7))
    assert result.mean_length == 15
    assert result.human_normalised == pytest.approx((5 + 20.7) / (14.6 + 20.7))


def test_interval_of_two_episodes_worked_out_by_hand():
    # Resamples are (0, 0), (0, 4), (4, 0), (4, 4), each a quarter: the 2.5th percentile is 0.
    assert scores((0.0, 4.0)).intervals["mean"] == (0.0, 4.0)


def test_interval_against_every_resample():
    returns = (1.0, 2.0, 4.0, 8.0, 9.0)
    every = np.array(list(itertools.product(returns, repeat=5)))
    for name, statistic in (
        ("mean", every.mean(1)),
        ("median", np.median(every, 1)),
        ("interquartile_mean", scipy.stats.trim_mean(every, 0.25, 1)),
    ):
        exact = np.quantile(statistic, [0.025, 0.975])
        np.testing.assert_allclose(scores(returns).intervals[name], exact, atol=0.25)


def test_the_interval_of_many_episodes_is_the_normal_one():
    returns = np.random.default_rng(0).normal(10, 5, 300)
    half = 1.96 * returns.std(ddof=1) / math.sqrt(300)
    expected = returns.mean() - half, returns.mean() + half
    np.testing.assert_allclose(scores(returns).intervals["mean"], expected, atol=0.05)


def test_the_same_returns_have_the_same_interval():
    returns = np.random.default_rng(1).normal(size=30)
    assert scores(returns).intervals == scores(returns).intervals
    assert set(scores((21.0,) * 30).intervals.values()) == {(21.0, 21.0)}


def test_intervals_along_an_axis():
    values = np.random.default_rng(2).normal(size=(3, 4))
    both = interval(values)
    assert both.shape == (2, 4)
    # With three values each of the extreme resamples has 1 / 27 > 2.5 %.
    np.testing.assert_allclose(both, [values.min(0), values.max(0)])
    assert np.isnan(interval(values[:1])).all()


def test_intervals_of_seeds_are_students_t():
    values = np.random.default_rng(2).normal(size=(3, 4))
    half = 4.302653 * values.std(0, ddof=1) / math.sqrt(3)  # 97.5 % of t, 2 degrees of freedom
    expected = values.mean(0) - half, values.mean(0) + half
    np.testing.assert_allclose(interval_of_seeds(values), expected, rtol=1e-6)
    assert np.isnan(interval_of_seeds(values[:1])).all()


def test_one_episode_has_no_spread():
    result = scores((7.0,))
    assert result.mean == result.median == result.interquartile_mean == 7.0
    assert all(map(math.isnan, (result.std, *itertools.chain(*result.intervals.values()))))
    assert math.isnan(scores(()).mean)


def test_table_shows_everything():
    text = shown(scores_table(scores(steps_per_second=2345.6)))
    for part in (
        *("pong", "v4", "2.5  (1.5 … 3.5)", "1.3", "66 %", "102 steps (0:07)", "2,346"),
        "NOOP 75 %, FIRE 25 %",
    ):
        assert part in text
    text = shown(scores_table(scores((7.0,), lengths=(27_000,), deterministic=True)))
    for part in ("v4-deterministic", "7.0  (– … –)", "27000 steps (30:00)"):
        assert part in text


def test_comparison_has_a_row_for_each():
    noisy = scores(perturbation=Perturbation("noise", 0.1), deterministic=True)
    text = shown(comparison_table([("one", scores()), ("two", noisy)]), width=120)
    assert "two     v4-deterministic noise=0.1" in text
    assert text.count("1.5 … 3.5") == 2


@pytest.mark.parametrize(
    "result",
    [
        scores(),
        scores((7.0,)),
        scores(()),
        scores(perturbation=Perturbation("frame_skip_jitter", 2, timespans=True)),
    ],
)
def test_scores_survive_json(result):
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert parse_json(Scores, text, "text") == result


def test_the_file_says_what_its_documentation_says(tmp_path):
    write_scores(tmp_path / "scores.json", scores(steps_per_second=1234.5))
    (entry,) = json.loads((tmp_path / "scores.json").read_text()).values()
    assert entry["steps_per_second"] == 1234.5
    assert entry["intervals"]["mean"] == [1.5, 3.5]
    assert entry["human_normalised_source"].startswith("Wang et al. 2016")
    documentation = scores_module.__doc__ or ""
    for field in entry:
        assert f" {field}" in documentation


def test_writing_scores_keeps_the_other_entries(tmp_path):
    path = tmp_path / "new" / "scores.json"
    old, new = scores((1.0, 2.0)), scores((3.0, 4.0))
    deterministic = dataclasses.replace(old, deterministic=True)
    noisy = dataclasses.replace(deterministic, perturbation=Perturbation("noise", 0.1))
    for entry in (old, deterministic, noisy, dataclasses.replace(old, protocol="v5"), new):
        write_scores(path, entry)

    keys = ["v4", "v4-deterministic", "v4-deterministic noise=0.1", "v5"]
    assert list(json.loads(path.read_text())) == keys
    assert json.loads(path.read_text())["v4"]["mean"] == 3.5
    read = read_scores(path)
    assert read["v4"] == new
    assert read["v4-deterministic noise=0.1"] == noisy


def test_evaluations_that_end_together_lose_nothing(tmp_path):
    path, seeds = tmp_path / "scores.json", range(8)
    entries = [scores(perturbation=Perturbation("noise", 0.1 * (1 + seed))) for seed in seeds]
    threads = [threading.Thread(target=write_scores, args=(path, entry)) for entry in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_scores(path) == {entry.key: entry for entry in entries}


def test_scores_of_earlier_weights_are_not_shown_and_go_with_the_next(tmp_path):
    path, weights = tmp_path / "scores.json", tmp_path / "weights.safetensors"
    assert scores_of(tmp_path) == {}
    weights.write_bytes(b"first")
    first = scores(weights_sha256=sha256(weights))
    write_scores(path, first)
    write_scores(path, dataclasses.replace(first, protocol="v5"))
    assert scores_of(tmp_path)["v4"] == first
    assert scores_of(tmp_path).keys() == {"v4", "v5"}
    weights.write_bytes(b"second")
    assert scores_of(tmp_path) == {}
    second = scores(weights_sha256=sha256(weights))
    write_scores(path, second)
    assert read_scores(path) == scores_of(tmp_path) == {"v4": second}


def changed(**fields):
    return json.dumps({"v4": scores().to_dict() | fields})


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ('{"v4": {"game"', "EOF"),
        ("[]", "[]"),
        ('{"v4": 3}', "v4 is 3"),
        ('{"v4": {"game": "pong"}}', "v4.protocol"),
        (changed(returns=[1, "2"]), "v4.returns.1"),
        (changed(returns=[1.0]), "lengths"),
        (changed(returns=[], lengths=[]), "v4 has no episodes"),
        (changed(returns=[10**400] * 4), "v4.returns.0"),
        (changed(returns=[math.nan] * 4), "v4.returns.0"),
        (changed(actions={"UP": 0.5}), "v4.actions.UP"),
        (changed(protocol="x/../y"), "v4.protocol"),
        (changed(perturbation={"kind": "noise"}), "v4.perturbation.strength"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_broken_scores_file_is_named_and_left(tmp_path, text, fact):
    path = tmp_path / "scores.json"
    path.write_text(text)
    for call in (lambda: read_scores(path), lambda: write_scores(path, scores())):
        with pytest.raises(UserError, match=r"scores\.json") as caught:
            call()
        assert fact in str(caught.value)
    assert path.read_text() == text


def test_missing_scores_name_the_command(tmp_path):
    with pytest.raises(UserError, match="ncp-agents evaluate"):
        read_scores(tmp_path / "scores.json")


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    left = tmp_path / ".scores.json.12345678.unfinished"
    left.mkdir()
    write_scores(tmp_path / "scores.json", scores())
    assert not left.exists()
