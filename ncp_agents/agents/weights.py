"""Weights by name, in safetensors files, which hold tensors and no code."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write


def weights(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and masks by name, each once.

    A state dict lists the encoder, which actor and critic share, three times.
    """
    return dict(network.named_parameters()) | dict(network.named_buffers())


def load_weights(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy tensors, read from `path`, into the network.

    Raises:
        UserError: names, shapes, types or masks that are not the network's, or values that are not
            finite.
    """
    expected = weights(network)
    for name in sorted(expected.keys() ^ tensors.keys()):
        what = "lacks" if name in expected else "has an unexpected"
        raise UserError(f"{path} does not fit the recipe: it {what} {name}")
    for name, own in expected.items():
        given = tensors[name]
        if (given.shape, given.dtype) != (own.shape, own.dtype):
            raise UserError(
                f"{path} does not fit the recipe: {name} is {given.dtype} {tuple(given.shape)}, "
                f"expected {own.dtype} {tuple(own.shape)}"
            )
        if not torch.isfinite(given).all():
            raise UserError(f"{path} is damaged: {name} has NaN or infinite values")
    for name, mask in network.named_buffers():
        if not torch.equal(mask.cpu(), tensors[name].cpu()):
            raise UserError(f"{path} does not fit the recipe: {name} is of another wiring")
    with torch.no_grad():
        for name, own in expected.items():
            own.copy_(tensors[name])


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file in one atomic step."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata)
        except SafetensorError as error:  # also what the system said of a full disk
            raise OSError(f"{path} could not be written: {error}") from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        UserError: a file of another kind, or a truncated one.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None
