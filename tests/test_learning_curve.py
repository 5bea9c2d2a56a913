"""Learning curves: what is drawn, and that the same runs give the same picture."""

from dataclasses import replace

import numpy as np
import pytest

from ncp_agents.agents.recipe import Recipe
from ncp_agents.errors import UserError
from ncp_agents.rendering import learning_curve as curve
from ncp_agents.rendering.learning_curve import Run, draw_curve, draw_curves


def run(name, seed, returns, speed=1000.0, **changes):
    rows = [{"steps": 1000.0, "seconds": 1.0}] + [
        {"steps": 1e6 * i, "seconds": 1e6 * i / speed, "return_mean": float(value)}
        for i, value in enumerate(returns, 2)
    ]
    return Run(f"{name}-{seed}", replace(Recipe(name=name, seed=seed), **changes), rows)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    kept = []
    save = curve.save_figure
    monkeypatch.setattr(curve, "save_figure", lambda f, p: (kept.append(f), save(f, p)))
    return kept


def test_seeds_are_drawn_together(tmp_path, figures):
    runs = [
        run("one", 1, [0, 10, 20]),
        run("one", 2, [10, 20, 30], speed=2000.0),
        run("two", 1, [5, 6, 7]),
    ]
    draw_curves(runs, tmp_path / "curves.png")
    steps, minutes = figures[0].axes
    assert [text.get_text() for text in steps.get_legend().get_texts()] == [
        "one, 2 seeds",
        "two, 1 seed",
        "human",
    ]
    mean = steps.get_lines()[0].get_xydata()
    np.testing.assert_allclose(mean[[0, -1]], [[2, 5], [4, 25]])
    # Seed 2 is twice as fast: both have minutes 2e6 / 1000 / 60 = 33.3 to 4e6 / 2000 / 60 = 33.3.
    mean = minutes.get_lines()[0].get_xydata()
    np.testing.assert_allclose(mean[0], [2000 / 60, 15])
    band = steps.collections[0].get_paths()[0].vertices
    # Student's t of two seeds: 12.7062 times the error of their mean, 5 everywhere.
    np.testing.assert_allclose(band[:, 1].min(), 5 - 12.7062 * 5, rtol=1e-4)
    np.testing.assert_allclose(band[:, 1].max(), 25 + 12.7062 * 5, rtol=1e-4)
    assert steps.get_ylim() == (-1.5, 31.5)  # the curves, 0 to 30


def test_steps_alone_are_one_column(tmp_path, figures):
    runs = [run("one", seed, [0, 10]) for seed in (1, 2)]
    draw_curves(runs, tmp_path / "curves.png", by=("steps",))
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "steps (millions; one is 4 frames)"


def test_other_settings_are_another_curve(tmp_path, figures):
    runs = [run("one", 1, [0, 1]), run("one", 2, [0, 1], steps=77)]
    draw_curves(runs, tmp_path / "curves.png")
    texts = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert texts[:2] == ["one, 1 seed", "one-2, 1 seed"]


def test_the_same_runs_give_the_same_bytes(tmp_path):
    runs = [run("one", seed, [0, seed, 20]) for seed in (1, 2, 3)]
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for picture in pictures:
        draw_curves(runs, picture)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    for picture in pictures:
        draw_curve(runs[0].rows, picture, runs[0].recipe)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_a_curve_before_the_first_episode_is_empty(tmp_path):
    made = run("one", 1, [])
    draw_curve(made.rows, tmp_path / "curve.png", made.recipe)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="one-1 has no finished episode"):
        draw_curves([made], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_seeds_without_steps_in_common_are_refused(tmp_path):
    one, two = (run("one", seed, [0, 10, 20]) for seed in (1, 2))
    late = [{"steps": 9e6, "seconds": 1.0, "return_mean": 2.0}]
    with pytest.raises(UserError, match="no steps in common"):
        draw_curves([one, two._replace(rows=late)], tmp_path / "curves.png")


def test_a_human_below_the_curves_is_shown(tmp_path, figures):
    draw_curves([run("one", 1, [18, 19, 20])], tmp_path / "curves.png")
    low, high = figures[0].axes[0].get_ylim()
    assert low < 14.6 < high


@pytest.mark.parametrize(("last", "label"), [(10, "human"), (-19, "human: 15, far above")])
def test_a_human_far_above_does_not_flatten_the_curve(tmp_path, figures, last, label):
    made = run("one", 1, [-21, last])
    draw_curve(made.rows, tmp_path / "curve.png", made.recipe)
    axes = figures[0].axes[0]
    assert axes.get_legend().get_texts()[-1].get_text() == label
    assert (axes.get_ylim()[1] > 14) == (label == "human")
