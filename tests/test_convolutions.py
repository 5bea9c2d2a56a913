"""The encoder's kernel: equal to plain torch, on every instruction set this machine has."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from instruction_sets import VARIANTS, use_library
from torch import nn

from ncp_agents.sb3 import CnnNcpPolicy
from ncp_agents.sb3.encoders import CompactCNN
from ncp_agents.torch import kernels
from ncp_agents.torch.frozen import frozen
from ncp_agents.torch.kernels import convolutions
from ncp_agents.torch.kernels.library import constant

# (C, H, W) of a frame, then (filters, kernel, stride) of each convolution
CHAINS = {
    "compact": ((1, 84, 84), [(16, 8, 4), (32, 4, 2)]),
    "deep": ((1, 84, 84), [(16, 8, 4), (32, 4, 2), (64, 3, 2)]),
    "nature": ((4, 84, 84), [(32, 8, 4), (64, 4, 2), (64, 3, 1)]),
    "smallest frame": ((3, 20, 20), [(16, 8, 4), (32, 4, 2)]),
    "pixels left over": ((3, 37, 41), [(5, 5, 2), (7, 3, 3), (33, 2, 1)]),
    "pixels between windows": ((2, 31, 23), [(3, 2, 3), (4, 1, 2)]),
    "one": ((1, 5, 6), [(20, 5, 1)]),
}


@pytest.fixture(params=VARIANTS, autouse=True)
def variant(request, monkeypatch):
    use_library(request.param, monkeypatch)
    torch.manual_seed(0)


def chain(name):
    (channels, *_), sizes = CHAINS[name]
    layers = []
    for filters, kernel, stride in sizes:
        layers.append(nn.Conv2d(channels, filters, kernel, stride))
        channels = filters
    return nn.ModuleList(layers)


def plain(frames, layers):
    """In float64."""
    x = frames.double() / 255 if frames.dtype == torch.uint8 else frames.double()
    x = F.layer_norm(x, x.shape[1:])
    for layer in layers:
        x = F.conv2d(x, layer.weight.double(), layer.bias.double(), layer.stride).relu()
    return x


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize("name", CHAINS)
def test_maps_and_gradients_equal_plain_torch(name, kind, threads, monkeypatch):
    layers = chain(name)
    frames = torch.randint(0, 256, (5, *CHAINS[name][0]), dtype=torch.uint8)
    frames = frames if kind == "bytes" else frames / 255
    parameters = [p for layer in layers for p in layer.parameters()]
    expected = plain(frames, layers)
    cotangent = torch.randn_like(expected)
    wanted = [expected, *torch.autograd.grad((expected * cotangent).sum(), parameters)]

    monkeypatch.setattr("ncp_agents.torch.kernels.library.MIN_PARALLEL_OPS", 1.0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found = convolutions.run(frames, layers)
    gradients = torch.autograd.grad((found * cotangent.float()).sum(), parameters)
    torch.set_num_threads(before)
    for ours, theirs in zip([found, *gradients], wanted, strict=True):
        assert ours.shape == theirs.shape
        error = (ours - theirs).abs().max() / theirs.abs().max()
        assert error < 1e-5


def test_a_frame_of_one_colour_gives_the_biases():
    layers = chain("compact")
    maps = convolutions.run(torch.full((2, 1, 84, 84), 200, dtype=torch.uint8), layers)
    expected = plain(torch.zeros(2, 1, 84, 84), layers)
    torch.testing.assert_close(maps, expected.float())


def test_strides_in_memory_do_not_matter():
    layers, frames = chain("smallest frame"), torch.rand(4, 20, 20, 3)
    by_channels = frames.permute(0, 3, 1, 2)
    expected = convolutions.run(by_channels.contiguous(), layers)
    assert torch.equal(convolutions.run(by_channels, layers), expected)


def test_no_frames_give_no_maps():
    layers = chain("compact")
    maps = convolutions.run(torch.zeros(0, 1, 84, 84), layers)
    assert maps.shape == (0, 32, 9, 9)
    gradient = torch.autograd.grad(maps.sum(), layers[0].weight)[0]
    assert not gradient.any()


def test_frozen_weights_are_prepared_once_for_each_kind_of_frames():
    layers, frames = chain("compact"), torch.rand(2, 1, 84, 84)
    with torch.no_grad(), frozen(layers):
        before = convolutions.run(frames, layers)
        layers[0].weight.mul_(0.5)  # the same memory
        after = convolutions.run(frames, layers)
        torch.testing.assert_close(after, plain(frames, layers).float())
        assert not torch.equal(before, after)
        for others in (frames[:1], torch.rand(2, 1, 60, 60), (255 * frames).byte()):
            expected = plain(others, layers).float()
            torch.testing.assert_close(convolutions.run(others, layers), expected)


def encoder():
    return CompactCNN(spaces.Box(0, 255, (1, 84, 84), np.uint8))


def calls_of(monkeypatch):
    calls = []
    run = convolutions.run
    monkeypatch.setattr(convolutions, "run", lambda *args: calls.append(1) or run(*args))
    return calls


def test_bytes_and_their_floats_give_the_same_features(monkeypatch):
    calls, compact = calls_of(monkeypatch), encoder()
    frames = torch.randint(0, 256, (3, 1, 84, 84), dtype=torch.uint8)
    of_bytes, of_floats = compact(frames), compact(frames / 255)
    assert len(calls) == 2
    torch.testing.assert_close(of_bytes, of_floats)
    with kernels.off():
        torch.testing.assert_close(compact(frames), of_bytes)
        assert torch.equal(compact(frames), compact(frames / 255))
    assert len(calls) == 2


def test_where_it_does_not_fit_plain_torch_does_the_work(monkeypatch):
    calls, compact = calls_of(monkeypatch), encoder()
    frames = torch.rand(2, 1, 84, 84)
    gradient = torch.autograd.grad(compact(frames.requires_grad_()).sum(), frames)[0]
    assert gradient.any()
    with torch.autocast("cpu", torch.bfloat16):
        compact(frames.detach())
    torch.export.export(compact, (frames.detach(),))
    compact.double()(frames.detach().double())
    assert calls == []


def test_frames_of_other_channels_are_refused_as_by_torch():
    with pytest.raises(RuntimeError, match="to have 1 channels, but got 4"):
        encoder()(torch.zeros(2, 4, 84, 84, dtype=torch.uint8))


@pytest.mark.parametrize(
    "other",
    [{"padding": 1}, {"dilation": 2}, {"groups": 2}, {"bias": False}, {"stride": (1, 2)}],
    ids=str,
)
def test_other_convolutions_do_not_fit(other):
    frames, plain = torch.rand(1, 2, 20, 20), {"in_channels": 2, "out_channels": 4}
    assert convolutions.fits(frames, [nn.Conv2d(**plain, kernel_size=3)])
    assert not convolutions.fits(frames, [nn.Conv2d(**plain, kernel_size=3, **other)])
    assert not convolutions.fits(frames, [nn.Conv2d(**plain, kernel_size=(3, 2))])
    assert not convolutions.fits(frames, [])
    assert not convolutions.fits(frames, [nn.Conv2d(2, 2, 1)] * (constant("MAX_MAPS") + 1))


def test_a_policy_hands_its_bytes_over(monkeypatch):
    space = spaces.Box(0, 255, (1, 84, 84), np.uint8)
    policy = CnnNcpPolicy(space, spaces.Discrete(3), lambda _: 1e-3)
    seen = []
    fits = convolutions.fits
    monkeypatch.setattr(
        convolutions,
        "fits",
        lambda frames, layers: seen.append(frames.dtype) or fits(frames, layers),
    )
    frames = torch.randint(0, 256, (3, 1, 84, 84), dtype=torch.uint8)
    features = policy.extract_features(frames)
    assert seen == [torch.uint8]
    torch.testing.assert_close(features, policy.features_extractor(frames / 255))
