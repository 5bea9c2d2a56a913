"""Policies out of stable-baselines3's own files: `model.save("model.zip")`.

The risk: such a file holds pickled objects beside its weights, and stable-baselines3's `load` runs
what code they name. Load only what you trust with it. `import_zip` does without them: it reads
nothing but the weights, by torch's reader of tensors alone, and a recipe tells what network they
are of.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, build, load_weights, weights
from ncp_agents.datasets.episode_file import NO_ARCHIVE
from ncp_agents.errors import UserError

WEIGHTS = "policy.pth"  # in the archive: the state dict of the policy


def import_zip(path: Path | str, recipe: Recipe) -> SavedPolicy:
    """The policy that a RecurrentPPO or SequencePPO with `CnnNcpPolicy` was saved with; runs no
    code from the file. `saved_policy.save` makes a policy folder of it.

    Args:
        path: what `model.save` wrote.
        recipe: of the same game, encoder, circuit and critic as the model.

    Raises:
        UserError: a file that is not such an archive, weights that are more than tensors, or those
            of another network than the recipe's.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            data = archive.read(WEIGHTS)
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(
            isinstance(t, Tensor) for t in tensors.values()
        ):
            raise pickle.UnpicklingError(f"a {type(tensors).__name__}, not a state dict")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; model.save(path) writes one") from None
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} holds more than tensors in {WEIGHTS}: {reason}") from None
    except (*NO_ARCHIVE, KeyError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is not a model of stable-baselines3, or was cut short: {reason}"
        ) from None
    network = build(recipe)
    # A state dict lists the encoder, which actor and critic share, three times.
    repeated = network.state_dict().keys() - weights(network).keys()
    load_weights(network, {k: v for k, v in tensors.items() if k not in repeated}, path)
    network.set_training_mode(False)
    return SavedPolicy(recipe, network)
