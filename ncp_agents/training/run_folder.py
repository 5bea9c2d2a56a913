"""One training in its own folder, which survives a crash at any moment.

    runs/pong-cfc-seed1/
      recipe.toml              as resolved from the file and the command line
      progress.csv             a row per rollout and per evaluation
      tensorboard/             the same and more, for `tensorboard --logdir runs`
      checkpoint.safetensors   what `--resume` continues from
      policy/                  the best policy so far, as a saved policy
      curve.png                return over steps

Files are replaced atomically, but for progress.csv and TensorBoard's events, which grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ncp_agents.agents.recipe import RECIPE, Recipe, read_recipe, to_toml
from ncp_agents.agents.saved_policy import CLONING, CURVE, PROGRESS, WEIGHTS, files
from ncp_agents.errors import UserError
from ncp_agents.files import UNFINISHED, copy_files, locked, remove_temporary_files, write_text

LOCK = ".training.lock"


class RunFolder:
    """The files of one run: the module's docstring lists them."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe = recipe
        self.progress = path / PROGRESS
        self.cloning = path / CLONING
        self.tensorboard = path / "tensorboard"
        self.checkpoint = path / "checkpoint.safetensors"
        self.policy = path / "policy"
        self.curve = path / CURVE

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunFolder:
        """Make the folder of a new run.

        A folder with nothing but the recipe of a run that never began is taken over, and one whose
        recipe a killed process did not finish.

        Raises:
            UserError: the folder holds something, or a recipe that a person wrote.
        """
        if path.exists() and not (path.is_dir() and {RECIPE, LOCK}.issuperset(_names(path))):
            raise UserError(
                f"{path} exists already; add --resume to continue it, or name another --run"
            )
        file = path / RECIPE
        if file.is_file():
            there = read_recipe(file)
            if there != recipe and file.read_text(encoding="utf-8") != to_toml(there):
                raise UserError(f"{file} is another recipe, written by hand; name another --run")
        run = cls(path, recipe)
        with run.lock():
            run.save_recipe()
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the run in a folder.

        Raises:
            UserError: the folder holds no run.
        """
        if (path / WEIGHTS).exists() or not (path / RECIPE).is_file():
            what = "a saved policy, " if (path / WEIGHTS).exists() else ""
            raise UserError(f"{path} is {what}not a run folder; make one: ncp-agents train")
        return cls(path, read_recipe(path / RECIPE))

    def save_recipe(self) -> None:
        """Write the recipe; a file of an equal one, which may have comments, stays."""
        file = self.path / RECIPE
        if not (file.is_file() and read_recipe(file) == self.recipe):
            write_text(file, to_toml(self.recipe))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Enter a context in which no other process can write to the folder.

        Raises:
            UserError: another process holds the lock.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        message = f"{self.path} is locked by another process; name another --run"
        with locked(self.path / LOCK, message):
            written = (self.path / RECIPE, self.progress, self.checkpoint, self.curve, self.cloning)
            for path in (*written, *files(self.policy)):
                remove_temporary_files(path)  # of a process that was killed
            yield

    def copy_policy(self, destination: Path) -> None:
        """Copy the policy and its learning curve to a folder, such as policies/pong-cfc."""
        curves = [self.progress, self.cloning, self.curve]
        for path in curves:
            if not path.exists():  # one of another policy must not stay
                (destination / path.name).unlink(missing_ok=True)
        copy_files([*files(self.policy), *filter(Path.exists, curves)], destination)


def default_run_folder(recipe: Recipe, runs: Path = Path("runs"), how: str | None = None) -> Path:
    """Return the folder of a recipe's run where none is named.

    Args:
        recipe: gives name and seed.
        runs: the parent folder.
        how: the kind of training, after the name; None is "continued" for a recipe that starts from
            a policy, and nothing for others.
    """
    how = how or ("continued" if recipe.start else None)
    return runs / "-".join(filter(None, [recipe.name, how, f"seed{recipe.seed}"]))


def _names(folder: Path) -> set[str]:
    """Return what a folder holds, but for what a killed process left."""
    return {path.name for path in folder.iterdir() if path.suffix != UNFINISHED}
