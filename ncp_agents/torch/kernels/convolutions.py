"""Convolutions of standardised frames on the CPU: `convolutions.c` as an operator.

Axes: B frames, C channels, H, W pixels, F filters of the last convolution, H', W' its positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ncp_agents.torch import kernels
from ncp_agents.torch.frozen import prepared
from ncp_agents.torch.kernels.library import (
    available,
    bytes_,
    constant,
    ffi,
    floats,
    padded,
    parallel_rows,
)
from ncp_agents.torch.kernels.operators import register
from ncp_agents.torch.kernels.pipeline import KernelCall

EPSILON = 1e-5
"""Of `torch.nn.functional.layer_norm`."""


def fits(frames: Tensor, cnn: Iterable[nn.Module]) -> bool:
    """Return whether `run` takes these.

    Square kernels without padding, dilation or groups, all on the CPU, and no gradient of the
    frames.
    """
    chain = _convolutions(cnn)
    return (
        kernels.are_on()
        and frames.device.type == "cpu"
        and frames.dtype in (torch.uint8, torch.float32)
        and not frames.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and frames.dim() == 4
        and len(chain) > 0
        and frames.shape[1] == chain[0].in_channels
        and all(map(_is_plain, chain))
        and available()
        and len(chain) <= constant("MAX_MAPS")
    )


def run(frames: Tensor, cnn: nn.Sequential | nn.ModuleList) -> Tensor:
    """Return each frame standardised, through the convolutions among `cnn` with ReLU after each.

    Args:
        frames: (B, C, H, W), in 0…1 or as bytes in 0…255.
        cnn: what fits; others than convolutions are left out.

    Returns:
        (B, F, H', W').
    """
    weights, strides = prepared(cnn, "convolutions", lambda: _weights(_convolutions(cnn)))
    return convolutions(frames, weights, strides)


def step_call(frames: Tensor, cnn: nn.Sequential, out: Tensor) -> KernelCall:
    """Return the call for bytes like `frames`, to out (B, F H' W'); its caller sets `bytes`."""
    weights, strides = _weights(_convolutions(cnn))
    call = _call(frames, weights, strides)
    call.bytes, call.pixels, call.out = ffi.NULL, ffi.NULL, floats(out)
    return KernelCall("convolutions_forward", call, (weights, out))


def _is_plain(convolution: nn.Conv2d) -> bool:
    height, width = convolution.kernel_size
    down, across = convolution.stride
    return (
        convolution.weight.dtype == torch.float32
        and convolution.weight.device.type == "cpu"
        and convolution.bias is not None
        and height == width
        and down == across
        and convolution.padding == (0, 0)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )


def _convolutions(cnn: Iterable[nn.Module]) -> list[nn.Conv2d]:
    return [layer for layer in cnn if isinstance(layer, nn.Conv2d)]


def _weights(chain: Sequence[nn.Conv2d]) -> tuple[list[Tensor], list[int]]:
    """Return weight and bias of each convolution, one after another, and their strides."""
    weights = [each for layer in chain for each in (layer.weight, layer.bias) if each is not None]
    return weights, [layer.stride[0] for layer in chain]


def _shape(frames: Tensor, weights: Sequence[Tensor], strides: Sequence[int]) -> list[int]:
    """Return (B, F, H', W')."""
    sides = list(frames.shape[2:])
    for weight, stride in zip(weights[::2], strides, strict=True):
        sides = [(side - weight.shape[2]) // stride + 1 for side in sides]
    return [frames.shape[0], weights[-1].shape[0], *sides]


def _operations(frames: Tensor, weights: Sequence[Tensor], strides: Sequence[int]) -> float:
    """Return the multiplications of the forward."""
    operations, sides = 0.0, list(frames.shape[2:])
    for weight, stride in zip(weights[::2], strides, strict=True):
        sides = [(side - weight.shape[2]) // stride + 1 for side in sides]
        operations += float(math.prod(sides) * weight.numel())
    return operations * len(frames)


def _call(frames: Tensor, weights: Sequence[Tensor], strides: Sequence[int]) -> Any:
    """Return the kernel's argument. It points into these tensors, which must outlive it."""
    call = ffi.new("ConvolutionsCall *")
    call.channels, call.height, call.width = frames.shape[1:]
    call.maps, call.epsilon = len(strides), EPSILON
    for index, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        filters, _, kernel, _ = weight.shape
        call.convolutions[index] = (floats(weight), floats(bias), filters, kernel, strides[index])
    if frames.dtype == torch.uint8:
        call.bytes = bytes_(frames)
    else:
        call.pixels = floats(frames)
    return call


def _forward(frames: Tensor, weights: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    frames, weights = frames.contiguous(), [weight.contiguous() for weight in weights]
    out = weights[0].new_empty(_shape(frames, weights, strides))
    call = _call(frames, weights, strides)
    call.out = floats(out)
    operations = _operations(frames, weights, strides)
    parallel_rows("convolutions_forward", call, len(frames), operations)
    return out


def _backward(
    dout: Tensor, frames: Tensor, out: Tensor, weights: Sequence[Tensor], strides: Sequence[int]
) -> list[Tensor]:
    frames, weights = frames.contiguous(), [weight.contiguous() for weight in weights]
    dout, shapes = dout.contiguous(), _packed_shapes(frames, weights)
    sizes = [size for shape in shapes for size in (math.prod(shape), shape[-1])]
    dweights = out.new_zeros(torch.get_num_threads(), sum(sizes))
    call = _call(frames, weights, strides)
    call.out, call.dout, call.dweights = map(floats, (out, dout, dweights))
    operations = 2 * _operations(frames, weights, strides)
    parallel_rows("convolutions_backward", call, len(frames), operations)
    sums = dweights.sum(0).split(sizes)
    grads: list[Tensor] = []
    for shape, dweight, dbias, weight in zip(
        shapes, sums[::2], sums[1::2], weights[::2], strict=True
    ):
        filters, channels = weight.shape[:2]
        own = dweight.view(shape)[:, :, :channels, :filters]
        grads += [own.permute(3, 2, 0, 1).contiguous(), dbias[:filters].clone()]
    return grads


def _packed_shapes(frames: Tensor, weights: Sequence[Tensor]) -> list[tuple[int, int, int, int]]:
    """Return (kernel, kernel, channels, filters) of the weights as the kernel has them.

    What it writes is padded, and so what it reads, except a frame's channels.
    """
    wide = [padded(weight.shape[0]) for weight in weights[::2]]
    channels = [frames.shape[1], *wide[:-1]]
    sizes = [weight.shape[2] for weight in weights[::2]]
    return [(k, k, c, w) for k, c, w in zip(sizes, channels, wide, strict=True)]


def _fake(frames: Tensor, weights: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    return weights[0].new_empty(_shape(frames, weights, strides))


def _fake_backward(
    dout: Tensor, frames: Tensor, out: Tensor, weights: Sequence[Tensor], strides: Sequence[int]
) -> list[Tensor]:
    return [weight.new_empty(weight.shape) for weight in weights]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    frames, weights, ctx.strides = inputs
    ctx.save_for_backward(frames, output, *weights)


def _of_weights(ctx: Any, dout: Tensor) -> tuple[None, list[Tensor], None]:
    frames, out, *weights = ctx.saved_tensors
    return None, convolutions_backward(dout, frames, out, weights, ctx.strides), None


convolutions_backward = register(
    "convolutions_backward(Tensor dout, Tensor frames, Tensor out, Tensor[] weights, "
    "int[] strides) -> Tensor[]",
    {"CPU": _backward},
    _fake_backward,
)
"""Gradients of weight and bias of each convolution."""
convolutions = register(
    "convolutions(Tensor frames, Tensor[] weights, int[] strides) -> Tensor",
    {"CPU": _forward},
    _fake,
    _of_weights,
    _setup_context,
)
"""(B, F, H', W') of frames (B, C, H, W)."""
