"""Convolutions of standardised frames on the CPU: `convolutions.c` as a differentiable function.

Axes: B frames, C channels, H, W pixels, F filters of the last convolution, H', W' its positions.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Sequence
from ctypes import c_float, c_int32, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ncp_agents.torch import kernels
from ncp_agents.torch.autograd import is_followed, written_by_hand
from ncp_agents.torch.frozen import prepared
from ncp_agents.torch.kernels.library import address, library, padded, parallel_rows
from ncp_agents.torch.kernels.pipeline import KernelCall

MAX_MAPS = 4
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
        ("convolutions", _Convolution * MAX_MAPS),
        ("bytes", c_void_p),
        ("pixels", c_void_p),
        ("out", c_void_p),
        ("dout", c_void_p),
        ("dweights", c_void_p),
    )


def fits(frames: Tensor, cnn: Iterable[nn.Module]) -> bool:
    """Whether `run` takes these: square kernels without padding, dilation or groups, all on the
    CPU, and no gradient of the frames.
    """
    chain = _convolutions(cnn)
    return (
        kernels.are_on()
        and not torch.compiler.is_compiling()
        and not is_followed(frames)
        and frames.device.type == "cpu"
        and frames.dtype in (torch.uint8, torch.float32)
        and not frames.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and frames.dim() == 4
        and 0 < len(chain) <= MAX_MAPS
        and frames.shape[1] == chain[0].in_channels
        and all(map(_is_plain, chain))
        and library() is not None
    )


def run(frames: Tensor, cnn: nn.Sequential | nn.ModuleList) -> Tensor:
    """Each frame standardised, then the convolutions among `cnn`, with ReLU after each.

    frames (B, C, H, W), in 0…1 or as bytes in 0…255 → (B, F, H', W').
    """
    plan = prepared(cnn, (frames.shape, frames.dtype), lambda: _plan(frames, _convolutions(cnn)))
    if not torch.is_grad_enabled():
        return _forward(plan, frames.contiguous())
    maps = Convolutions.apply(plan, frames.contiguous(), *plan.weights)
    assert isinstance(maps, Tensor)
    return maps


def link(frames: Tensor, cnn: nn.Sequential, out: Tensor) -> KernelCall:
    """Of bytes like `frames`, to out (B, F H' W'); who runs it sets `bytes`."""
    plan = _plan(frames, _convolutions(cnn))
    plan.call.out = address(out)
    return KernelCall("convolutions_forward", plan.call, (plan.weights, out))


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


class Plan(NamedTuple):
    """What does not change from call to call with the same weights."""

    weights: list[Tensor]
    """Weight and bias of each convolution."""
    shape: tuple[int, ...]
    """Of what comes out, (B, F, H', W')."""
    operations: float
    """Multiplications of the forward."""
    call: _Call
    """The kernel's argument, which points into the weights."""


def _plan(frames: Tensor, convolutions: Sequence[nn.Conv2d]) -> Plan:
    weights, operations = [], 0.0
    call = _Call(*frames.shape[1:], maps=len(convolutions), epsilon=EPSILON)
    rows, columns = frames.shape[2:]
    for index, convolution in enumerate(convolutions):
        assert convolution.bias is not None
        weight, bias = convolution.weight.contiguous(), convolution.bias.contiguous()
        (filters, _, kernel, _), stride = weight.shape, convolution.stride[0]
        rows, columns = ((size - kernel) // stride + 1 for size in (rows, columns))
        operations += float(rows * columns * weight.numel()) * len(frames)
        call.convolutions[index] = _Convolution(
            address(weight), address(bias), filters, kernel, stride
        )
        weights += [weight, bias]
    shape = (len(frames), weights[-1].shape[0], rows, columns)
    return Plan(weights, shape, operations, call)


def _forward(plan: Plan, frames: Tensor) -> Tensor:
    out = plan.weights[0].new_empty(plan.shape)
    call = _reading(plan, frames)
    call.out = address(out)
    parallel_rows("convolutions_forward", call, len(frames), plan.operations)
    return out


class Convolutions(torch.autograd.Function):
    """frames (B, C, H, W), then weight and bias of each convolution → (B, F, H', W')."""

    @staticmethod
    def forward(ctx, plan: Plan, frames: Tensor, *weights: Tensor) -> Tensor:
        out = _forward(plan, frames)
        ctx.plan = plan
        ctx.save_for_backward(frames, out, *weights)
        return out

    @staticmethod
    @written_by_hand
    def backward(ctx, *grad_outputs: Tensor):
        frames, out, *weights = ctx.saved_tensors
        dout = grad_outputs[0].contiguous()
        shapes = _packed_shapes(frames, weights)
        sizes = [size for shape in shapes for size in (math.prod(shape), shape[-1])]
        dweights = out.new_zeros(torch.get_num_threads(), sum(sizes))
        call = _reading(ctx.plan, frames)
        call.out, call.dout, call.dweights = map(address, (out, dout, dweights))
        parallel_rows("convolutions_backward", call, len(frames), 2 * ctx.plan.operations)
        sums = dweights.sum(0).split(sizes)
        grads: list[Tensor] = []
        for shape, dweight, dbias, weight in zip(
            shapes, sums[::2], sums[1::2], weights[::2], strict=True
        ):
            filters, channels = weight.shape[:2]
            own = dweight.view(shape)[:, :, :channels, :filters]
            grads += [own.permute(3, 2, 0, 1), dbias[:filters]]
        return None, None, *grads


def _reading(plan: Plan, frames: Tensor) -> _Call:
    """The kernel's argument for these frames."""
    call = _Call.from_buffer_copy(plan.call)
    if frames.dtype == torch.uint8:
        call.bytes = address(frames)
    else:
        call.pixels = address(frames)
    return call


def _packed_shapes(frames: Tensor, weights: Sequence[Tensor]) -> list[tuple[int, int, int, int]]:
    """(kernel, kernel, channels, filters) of the weights as the kernel has them: what it makes is
    padded, and so what it reads, but for a frame's channels.
    """
    wide = [padded(weight.shape[0]) for weight in weights[::2]]
    channels = [frames.shape[1], *wide[:-1]]
    sizes = [weight.shape[2] for weight in weights[::2]]
    return [(k, k, c, w) for k, c, w in zip(sizes, channels, wide, strict=True)]
