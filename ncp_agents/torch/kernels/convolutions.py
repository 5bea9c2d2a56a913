"""Convolutions of standardised frames on the CPU: `convolutions.c` as a differentiable function.

Axes: B frames, C channels, H, W pixels, F filters of the last convolution, H', W' its positions.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_void_p

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ncp_agents.torch import kernels
from ncp_agents.torch.kernels.compiled import address, by_rows, library, padded

MOST_MAPS = 4
EPSILON = 1e-5
"""Of `torch.nn.functional.layer_norm`."""


class _Convolution(ctypes.Structure):
    """`Convolution` of convolutions.c."""

    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("filters", c_int32),
        ("kernel", c_int32),
        ("stride", c_int32),
    )


class _Call(ctypes.Structure):
    """`Call` of convolutions.c."""

    _fields_ = (
        ("channels", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("maps", c_int32),
        ("epsilon", c_float),
        ("convolutions", _Convolution * MOST_MAPS),
        ("bytes", c_void_p),
        ("pixels", c_void_p),
        ("out", c_void_p),
        ("dout", c_void_p),
        ("dweights", c_void_p),
    )


def fits(frames: Tensor, convolutions: Sequence[nn.Conv2d]) -> bool:
    """Whether `run` takes these: square kernels without padding, on the CPU, and no gradient of
    the frames."""
    return (
        kernels.are_on()
        and not torch.compiler.is_compiling()
        and frames.device.type == "cpu"
        and frames.dtype in (torch.uint8, torch.float32)
        and not frames.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and all(c.weight.dtype == torch.float32 and c.bias is not None for c in convolutions)
        and library() is not None
    )


def run(frames: Tensor, convolutions: Sequence[nn.Conv2d]) -> Tensor:
    """Each frame standardised, then the convolutions, with ReLU after each.

    frames (B, C, H, W), in 0…1 or as bytes in 0…255 → (B, F, H', W').
    """
    weights = [
        tensor.contiguous()
        for convolution in convolutions
        for tensor in (convolution.weight, convolution.bias)
        if tensor is not None
    ]
    strides = [convolution.stride[0] for convolution in convolutions]
    maps = Convolutions.apply(frames.contiguous(), strides, *weights)
    assert isinstance(maps, Tensor)
    return maps


class Convolutions(torch.autograd.Function):
    """frames (B, C, H, W), the strides, then weight and bias of each convolution
    → (B, F, H', W')."""

    @staticmethod
    def forward(ctx, frames: Tensor, strides: list[int], *weights: Tensor) -> Tensor:
        maps = _maps(frames, strides, weights)
        out = weights[0].new_empty(len(frames), *maps[-1])
        call = _call(frames, strides, weights)
        call.out = address(out)
        by_rows("convolutions_forward", call, len(frames), _operations(frames, maps, weights))
        ctx.strides = strides
        ctx.save_for_backward(frames, out, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor):
        frames, out, *weights = ctx.saved_tensors
        dout = grad_outputs[0].contiguous()
        shapes = _packed_shapes(frames, weights)
        sizes = [size for shape in shapes for size in (math.prod(shape), shape[-1])]
        dweights = out.new_zeros(torch.get_num_threads(), sum(sizes))
        call = _call(frames, ctx.strides, weights)
        call.out, call.dout, call.dweights = map(address, (out, dout, dweights))
        operations = 2 * _operations(frames, _maps(frames, ctx.strides, weights), weights)
        by_rows("convolutions_backward", call, len(frames), operations)
        sums = dweights.sum(0).split(sizes)
        grads: list[Tensor] = []
        for shape, dweight, dbias, weight in zip(
            shapes, sums[::2], sums[1::2], weights[::2], strict=True
        ):
            filters, channels = weight.shape[:2]
            own = dweight.view(shape)[:, :, :channels, :filters]
            grads += [own.permute(3, 2, 0, 1), dbias[:filters]]
        return None, None, *grads


def _maps(
    frames: Tensor, strides: list[int], weights: Sequence[Tensor]
) -> list[tuple[int, int, int]]:
    """(filters, rows, columns) of what each convolution makes."""
    maps = []
    rows, columns = frames.shape[2:]
    for weight, stride in zip(weights[::2], strides, strict=True):
        rows, columns = ((size - weight.shape[2]) // stride + 1 for size in (rows, columns))
        maps.append((weight.shape[0], rows, columns))
    return maps


def _packed_shapes(frames: Tensor, weights: Sequence[Tensor]) -> list[tuple[int, int, int, int]]:
    """(kernel, kernel, channels, filters) of the weights as the kernel has them: what it makes is
    padded, and so what it reads, but for a frame's channels."""
    wide = [padded(weight.shape[0]) for weight in weights[::2]]
    channels = [frames.shape[1], *wide[:-1]]
    sizes = [weight.shape[2] for weight in weights[::2]]
    return [(k, k, c, w) for k, c, w in zip(sizes, channels, wide, strict=True)]


def _operations(
    frames: Tensor, maps: list[tuple[int, int, int]], weights: Sequence[Tensor]
) -> float:
    """Multiplications of the forward."""
    a_frame = sum(
        rows * columns * weight.numel()
        for (_, rows, columns), weight in zip(maps, weights[::2], strict=True)
    )
    return float(a_frame) * len(frames)


def _call(frames: Tensor, strides: list[int], weights: Sequence[Tensor]) -> _Call:
    """The kernel's argument, which points into the tensors."""
    call = _Call(*frames.shape[1:], maps=len(strides), epsilon=EPSILON)
    if frames.dtype == torch.uint8:
        call.bytes = address(frames)
    else:
        call.pixels = address(frames)
    for index, stride in enumerate(strides):
        weight, bias = weights[2 * index : 2 * index + 2]
        call.convolutions[index] = _Convolution(
            address(weight), address(bias), weight.shape[0], weight.shape[2], stride
        )
    return call
