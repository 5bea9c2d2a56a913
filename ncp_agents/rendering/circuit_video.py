"""Frames of 1280 × 720 pixels: the game, and beside it the circuit with its activity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.evaluation.rollout import Step
from ncp_agents.explain.activations import ActivationRecorder, Trace, trace
from ncp_agents.explain.circuit_graph import CircuitGraph
from ncp_agents.rendering.canvas import (
    BACKGROUND,
    FAINT,
    GREY,
    INK,
    NEGATIVE,
    POSITIVE,
    Box,
    RunningLine,
    draw_text,
    fitted,
)
from ncp_agents.rendering.circuit_layout import CircuitLayout

WIDTH, HEIGHT = 1280, 720
GAME = Box(24, 66, 504, 696)  # three times 160 × 210
CIRCUIT = Box(548, 104, 1012, 536)
ACTIONS = Box(1030, CIRCUIT.top, 1256, CIRCUIT.bottom)
LINES = Box(CIRCUIT.left - 14, CIRCUIT.top - 6, ACTIONS.left + 14, CIRCUIT.bottom + 6)  # and nodes
VALUE, SCORE = Box(548, 598, 888, 692), Box(916, 598, 1256, 692)
LINE_STEPS = 20 * STEPS_PER_SECOND  # of value and return that are shown


class Moment(NamedTuple):
    """What a frame shows of one step."""

    rgb_frame: np.ndarray  # (H, W, 3) uint8
    signals: np.ndarray  # (K,), as `Trace.signals`
    probabilities: np.ndarray  # (A,)
    action: int
    value: float
    score: float  # of the episode, with this step's reward


def _moments(trace: Trace) -> Iterator[Moment]:
    parts = (trace.signals, trace.probabilities, trace.actions, trace.values, trace.returns)
    for rgb_frame, *own in zip(trace.frames, *parts, strict=True):
        yield Moment(rgb_frame, *own)


def circuit_frames(trace: Trace, graph: CircuitGraph, title: str) -> Iterator[np.ndarray]:
    """Yield a frame (720, 1280, 3) uint8 for each step of a trace."""
    renderer = CircuitRenderer(graph, title, trace)
    for t, moment in enumerate(_moments(trace)):
        yield renderer.draw(moment, f"{_clock(t)}   step {t + 1:,} of {len(trace):,}")


def live_circuit_frames(
    steps: Iterable[Step], recorder: ActivationRecorder, renderer: CircuitRenderer
) -> Iterator[tuple[Step, np.ndarray]]:
    """Yield each step with its frame, of the first environment, in which `recorder` acts."""
    episode, length, score = 1, 0, 0.0
    for step in steps:
        score += float(step.rewards[0])
        [moment] = _moments(trace(recorder, [step]))
        caption = f"{_clock(length)}   episode {episode}, step {length + 1:,}"
        yield step, renderer.draw(moment._replace(score=score), caption)
        length += 1
        if "episode" in step.infos[0]:
            episode, length, score = episode + 1, 0, 0.0


def _clock(steps: int) -> str:
    """Return the emulator's time in minutes and seconds."""
    seconds = steps // STEPS_PER_SECOND
    return f"{seconds // 60}:{seconds % 60:02d}"


class CircuitRenderer:
    """Draws moments one after another, each (720, 1280, 3) uint8.

    Neurons and synapses are blue above 0 and orange below, at full strength from the 99th
    percentile of their column in the trace `typical`. The running lines span its values and
    returns, and more where the moments exceed them.
    """

    def __init__(self, graph: CircuitGraph, title: str, typical: Trace) -> None:
        layout = CircuitLayout(graph)
        self._names = graph.names[-typical.probabilities.shape[1] :]  # of the actions
        self._background = _background(layout, title)
        self._circuit = _CircuitDrawing(layout, typical.signals)
        self._value = RunningLine(VALUE, typical.values, LINE_STEPS)
        self._score = RunningLine(SCORE, typical.returns, LINE_STEPS)

    def draw(self, moment: Moment, caption: str) -> np.ndarray:
        """Return the frame, with `caption` above the game."""
        frame = self._background.copy()
        _draw_game(frame, moment.rgb_frame)
        self._circuit.draw(frame, moment.signals)
        _draw_actions(frame, self._names, moment.probabilities, int(moment.action))
        self._value.draw(frame, moment.value, f"{moment.value:z.2f}")
        self._score.draw(frame, moment.score, f"{moment.score:,.0f}")
        draw_text(frame, (GAME.right, 42), caption, 15, GREY, "right")
        return frame


def _background(layout: CircuitLayout, title: str) -> np.ndarray:
    """Return what all frames share."""
    graph = layout.graph
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    frame[:] = BACKGROUND
    draw_text(frame, (GAME.left, 8), fitted(title, 22, GAME.width), 22, INK)
    draw_text(frame, (CIRCUIT.left - 10, 29), graph.about, 17, INK)
    note = "blue raises, orange lowers"
    if layout.in_blocks:
        note = "too many synapses for lines: layers as blocks of neurons"
    draw_text(frame, (ACTIONS.right, 31), note, 15, GREY, "right")
    for column in graph.columns[:-1]:
        middle = CIRCUIT.left + _across(layout.places[column.nodes, 0].mean())
        label = f"{len(column.nodes)} {column.kind}"
        draw_text(frame, (int(middle), CIRCUIT.top - 34), label, 15, GREY, "middle")
    draw_text(frame, (ACTIONS.left + 14, CIRCUIT.top - 34), "action", 15, GREY)
    for box, name in ((VALUE, "value"), (SCORE, "return")):
        draw_text(frame, (box.left, box.top - 28), name, 15, GREY)
    return frame


def _across(x: Any) -> Any:
    """`CircuitLayout.places`' x of 0…1 → pixels; the actions have a box of their own."""
    return x * (ACTIONS.left - CIRCUIT.left)


class _CircuitDrawing:
    """The neurons and synapses, on the colour scales of typical signals (T, K).

    The pixels of a line are worked out once: coverage (P, S) is how much of each of P pixels a
    synapse's line fills, so that a step's light is one sparse product. Neurons in the same way.
    """

    def __init__(self, layout: CircuitLayout, typical: np.ndarray) -> None:
        self._graph = layout.graph
        x, y = _across(layout.places[:, 0]), layout.places[:, 1] * CIRCUIT.height
        xy = np.stack([CIRCUIT.left - LINES.left + x, CIRCUIT.top - LINES.top + y], 1)
        self._drawn = np.flatnonzero(layout.drawn)
        self._node_scale, synapse_scale, _ = layout.scales(typical)
        self._synapse_scale = synapse_scale[self._drawn]
        shapes = _shapes(xy, layout)
        self._pixels, self._coverage = _lines(xy, shapes, layout.graph.ends[self._drawn])
        self._node_pixels = _node_pixels(xy, shapes)
        self._picture = np.empty(LINES.height * LINES.width, np.uint32)  # a pixel is r, g, b, 0

    def draw(self, frame: np.ndarray, signals: np.ndarray) -> None:
        """Draw a step's signals (K,)."""
        picture = self._picture
        picture[:] = _GLOW[0]
        if len(self._drawn):
            strength = self._graph.currents(signals)[self._drawn] / self._synapse_scale
            both = np.stack([np.maximum(strength, 0), np.maximum(-strength, 0)], 1)
            # The power of 1.5 dims the many weak ones beside the few strong ones.
            light = self._coverage @ np.minimum(both, 1).astype(np.float32) ** 1.5
            level = np.minimum(light * (256 / BRIGHTEST), 255).astype(np.uint8)
            picture[self._pixels] = _GLOW[level.view(np.uint16)[:, 0]]
        activity = signals[: self._graph.nodes] / self._node_scale
        pixels, node, alpha = self._node_pixels
        bytes_ = picture.view(np.uint8).reshape(-1, 4)[:, :3]
        color, under = _diverging(activity)[node], bytes_[pixels]
        bytes_[pixels] = under + (color - under) * alpha[:, None]
        frame[LINES.top : LINES.bottom, LINES.left : LINES.right] = bytes_.reshape(
            LINES.height, -1, 3
        )


BRIGHTEST = 4.0  # lines on one pixel that saturate it


def _glow() -> np.ndarray:
    """(65536,): the colour, as r, g, b, 0, of positive and negative light, a byte each."""
    light = 1 - np.exp(-0.9 * BRIGHTEST / 256 * np.arange(256))[:, None]
    color = light * np.array(POSITIVE) + light[:, None] * np.array(NEGATIVE) + BACKGROUND
    pixels = np.zeros((256, 256, 4), np.uint8)
    pixels[..., :3] = np.minimum(color, 255)
    return pixels.view(np.uint32).ravel()


_GLOW = _glow()


def _lines(xy: np.ndarray, shapes: list[_Shape], ends: np.ndarray) -> tuple[np.ndarray, csr_array]:
    """Return the pixels (P,) that lines between nodes touch, and the coverage (P, S) of each.

    Lines run from edge to edge.
    """
    if not len(ends):
        return np.empty(0, int), csr_array((0, 0), dtype=np.float32)
    edge = np.array([[shape.half_width, 0] for shape in shapes])
    within = (np.abs(xy[ends[:, 0], 0] - xy[ends[:, 1], 0]) < 1)[:, None]
    start = xy[ends[:, 0]] + edge[ends[:, 0]]
    stop = xy[ends[:, 1]] + np.where(within, edge[ends[:, 1]], -edge[ends[:, 1]])
    points = 2 * int(np.ceil(np.linalg.norm(stop - start, axis=1).max())) + 8
    s = np.linspace(0, 1, points)[:, None]
    rows, columns, amounts = [], [], []
    for synapse, (a, b) in enumerate(zip(start, stop, strict=True)):
        line = a + s * (b - a)
        if within[synapse]:  # an arc to the right, a loop to itself
            line[:, 0] += (10 + 0.15 * abs(a[1] - b[1])) * np.sin(np.pi * s[:, 0])
            if a[1] == b[1]:
                line[:, 1] += 6 * np.sin(2 * np.pi * s[:, 0])
        # Each point's weight goes to its four nearest pixels; all together are the line's length.
        length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
        x, y = np.floor(line).astype(int).T
        dx, dy = (line - np.floor(line)).T
        for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
            rows.append((y + below) * LINES.width + x + right)
            columns.append(np.full(points, synapse))
            weight = (dx if right else 1 - dx) * (dy if below else 1 - dy)
            amounts.append(weight * length / points)
    place = np.concatenate(rows)
    touched = np.zeros(LINES.width * LINES.height, bool)
    touched[place] = True
    pixels, row = np.flatnonzero(touched), (np.cumsum(touched) - 1)[place]
    where = row.astype(np.int32), np.concatenate(columns).astype(np.int32)
    entries = np.concatenate(amounts).astype(np.float32), where
    coverage = csr_array(entries, shape=(len(pixels), len(ends)))
    coverage.data[coverage.data < 0.05] = 0  # invisible
    coverage.eliminate_zeros()
    return pixels, coverage


class _Shape(NamedTuple):
    """Of one node: inputs and blocks are cells of a heat map, other neurons discs."""

    half_width: float
    half_height: float
    cell: bool


def _shapes(xy: np.ndarray, layout: CircuitLayout) -> list[_Shape]:
    """Return a shape for each node, as large as its column leaves room for."""
    shapes = [_Shape(0, 0, False)] * layout.graph.nodes
    for column in layout.graph.columns:
        across, down = (np.unique(xy[column.nodes, axis].round(3)) for axis in (0, 1))
        pitch = CIRCUIT.height / len(down)
        if layout.is_block(column):
            wide = np.diff(across).min() if len(across) > 1 else 20.0
            shape = _Shape(max(min(wide, 20) / 2 - 0.5, 0.6), max(pitch / 2 - 0.5, 0.6), True)
        else:
            shape = _Shape(min(0.42 * pitch, 8.0), min(0.42 * pitch, 8.0), False)
        for node in column.nodes:
            shapes[node] = shape
    return shapes


def _node_pixels(xy: np.ndarray, shapes: list[_Shape]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pixels (P,) of all nodes, the node of each (P,) and its coverage (P,)."""
    found = []
    for node, ((x, y), (half_width, half_height, cell)) in enumerate(zip(xy, shapes, strict=True)):
        columns = np.arange(int(x - half_width) - 1, int(x + half_width) + 3)
        rows = np.arange(int(y - half_height) - 1, int(y + half_height) + 3)
        dx, dy = np.abs(columns - x), np.abs(rows - y)[:, None]
        if cell:
            alpha = np.clip(half_width + 0.5 - dx, 0, 1) * np.clip(half_height + 0.5 - dy, 0, 1)
        else:
            alpha = np.clip(half_width + 0.5 - np.hypot(dx, dy), 0, 1)
        covered = alpha > 0
        place = (rows[:, None] * LINES.width + columns)[covered]
        found.append((place, np.full(len(place), node), alpha[covered]))
    pixels, nodes, alphas = (np.concatenate(part) for part in zip(*found, strict=True))
    return pixels, nodes, alphas.astype(np.float32)


def _diverging(values: np.ndarray) -> np.ndarray:
    """Values (n,) of -1…1 → colours (n, 3) float32 of 0…255."""
    strength = np.minimum(np.abs(values), 1)[:, None] ** 0.8
    color = np.where(
        values[:, None] >= 0, np.array(POSITIVE, np.float32), np.array(NEGATIVE, np.float32)
    )
    return np.array(FAINT, np.float32) + strength * (color - np.array(FAINT, np.float32))


def _draw_game(frame: np.ndarray, rgb_frame: np.ndarray) -> None:
    """Draw the game's frame, enlarged by a whole number, in the middle of its box."""
    height, width, _ = rgb_frame.shape
    scale = max(min(GAME.width // width, GAME.height // height), 1)
    height, width = scale * height, scale * width
    left, top = (GAME.left + GAME.right - width) // 2, (GAME.top + GAME.bottom - height) // 2
    # Columns first: rows are then copied whole.
    frame[top : top + height, left : left + width] = rgb_frame.repeat(scale, 1).repeat(scale, 0)


def _draw_actions(
    frame: np.ndarray, names: tuple[str, ...], probabilities: np.ndarray, taken: int
) -> None:
    """Draw a bar for each action beside its node, and the action taken brightly."""
    left, right = ACTIONS.left + 14, ACTIONS.right
    pitch = ACTIONS.height / len(probabilities)
    half = int(min(pitch / 2 - 1, 15))
    for index, (name, probability) in enumerate(zip(names, probabilities, strict=True)):
        y = int(ACTIONS.top + (index + 0.5) * pitch)
        chosen = index == taken
        box = frame[y - half : y + half, left:right]
        box[:] = FAINT
        box[:, : round(float(probability) * (right - left))] = (
            (32, 110, 160) if chosen else (64, 72, 88)
        )
        if chosen:
            box[:, :3] = INK
        size = 15 if half >= 9 else 2 * half - 1
        color = INK if chosen else GREY
        draw_text(frame, (left + 10, y - size // 2 - 2), name, size, color)
        draw_text(frame, (right - 8, y - size // 2 - 2), f"{probability:.0%}", size, color, "right")
