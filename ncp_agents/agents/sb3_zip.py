"""Policies from stable-baselines3's own files, `model.save("model.zip")`, without running code.

Such a file holds pickled objects beside its weights, and stable-baselines3's `load` runs whatever
code they name. Here only the weights are read, by torch's reader of tensors; a recipe describes
their network.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, build
from ncp_agents.agents.weights import load_weights, weights
from ncp_agents.errors import UserError

WEIGHTS = "policy.pth"  # in the archive: the state dict of the policy


def import_zip(path: Path | str, recipe: Recipe) -> SavedPolicy:
    """Return the policy that RecurrentPPO or SequencePPO with `CnnNcpPolicy` was saved with.

    `saved_policy.save` makes a policy folder of it.

    Args:
        path: what `model.save` wrote.
        recipe: of the same game, encoder, circuit and critic as the model.

    Raises:
        UserError: a file that is not such an archive, contents other than tensors, or weights of
            another network than the recipe's.
    """
    path = Path(path)
    network = build(recipe)
    # The encoder, which actor and critic share, is in a state dict three times.
    repeated = network.state_dict().keys() - weights(network).keys()
    tensors = _read_tensors(path)
    load_weights(network, {k: v for k, v in tensors.items() if k not in repeated}, path)
    network.set_training_mode(False)
    return SavedPolicy(recipe, network)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            file = io.BytesIO(archive.read(WEIGHTS))
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
            raise TypeError(f"{WEIGHTS} is not a state dict")
    except Exception as error:  # zipfile, pickle and torch raise many kinds
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is not a model saved by stable-baselines3: {reason}") from None
    return tensors
