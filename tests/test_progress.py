"""`progress.csv`: rows after a crash, and damaged files."""

import pytest

from ncp_agents.errors import UserError
from ncp_agents.training.progress import ProgressCsv, read_progress


def test_progress_drops_rows_after_the_checkpoint_and_a_row_cut_short(tmp_path):
    path = tmp_path / "progress.csv"
    writer = ProgressCsv(path)
    for steps in (32, 64, 96):
        values = {"time/total_timesteps": steps, "time/seconds": 1.0, "rollout/ep_rew_mean": -20.5}
        writer.write(values, {}, steps)
    writer.close()
    path.write_text(path.read_text() + "128,1.0")  # killed while writing
    assert [row["steps"] for row in read_progress(path)] == [32, 64, 96]
    ProgressCsv(path, last_step=64).close()
    assert [row["steps"] for row in read_progress(path)] == [32, 64]
    assert read_progress(path)[1]["return_mean"] == -20.5


def test_progress_keeps_every_digit_of_millions_of_steps_through_resumptions(tmp_path):
    path, steps = tmp_path / "progress.csv", [1_001_472, 9_999_359]
    writer = ProgressCsv(path)
    for step in steps:
        values = {"time/total_timesteps": step, "time/seconds": 1, "rollout/ep_rew_mean": 12345.678}
        writer.write(values, {}, step)
    writer.close()
    for _ in range(2):
        ProgressCsv(path, last_step=steps[-1]).close()
        assert [row["steps"] for row in read_progress(path)] == steps
        assert [row["return_mean"] for row in read_progress(path)] == [12345.7] * 2


@pytest.mark.parametrize(
    "content",
    [b"steps,seconds\n1,\xff\n", b"steps,return_mean\n1,2\n", b"steps,seconds\n1,x\n"],
)
def test_a_damaged_progress_file_is_named(tmp_path, content):
    (tmp_path / "progress.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"progress\.csv"):
        read_progress(tmp_path / "progress.csv")
