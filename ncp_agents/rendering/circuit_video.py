"""The game beside the circuit that plays it, as pictures of 1280 × 720 pixels."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.sparse import csr_array

from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.explain.activations import Trace
from ncp_agents.explain.circuit_graph import CircuitGraph

WIDTH, HEIGHT = 1280, 720


class Box(NamedTuple):
    """Pixels from the left and the top."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


GAME = Box(24, 66, 504, 696)  # three times 160 × 210
CIRCUIT = Box(548, 104, 1012, 536)
ACTIONS = Box(1030, CIRCUIT.top, 1256, CIRCUIT.bottom)
LIT = Box(CIRCUIT.left - 14, CIRCUIT.top - 6, ACTIONS.left + 14, CIRCUIT.bottom + 6)  # lines too
VALUE, SCORE = Box(548, 598, 888, 692), Box(916, 598, 1256, 692)
LINE_STEPS = 20 * STEPS_PER_SECOND  # that a running line shows

Color = tuple[int, int, int]
BACKGROUND, INK, GREY, FAINT = (15, 17, 22), (232, 233, 236), (146, 152, 163), (42, 46, 56)
RAISES, LOWERS = (86, 180, 233), (255, 148, 64)  # of Okabe and Ito's palette, on a dark ground


class Moment(NamedTuple):
    """What a picture shows of one step."""

    screen: np.ndarray  # (H, W, 3) uint8
    signals: np.ndarray  # (K,), as `Trace.signals`
    probabilities: np.ndarray  # (A,)
    action: int
    value: float
    score: float  # of the game, with this step's reward in it


def moments(trace: Trace) -> Iterator[Moment]:
    """A trace's, one after another."""
    parts = (trace.signals, trace.probabilities, trace.actions, trace.values, trace.returns)
    for screen, *own in zip(trace.screens, *parts, strict=True):
        yield Moment(screen, *own)


class CircuitRenderer:
    """Draws moments one after another, each (720, 1280, 3) uint8.

    Neurons and synapses are blue above 0 and orange below, at full strength where 99 % of their
    column's are weaker over the trace `usual`. The running lines span its values and returns, and
    what comes beyond them.
    """

    def __init__(self, circuit_graph: CircuitGraph, title: str, usual: Trace) -> None:
        self._anatomy = circuit_graph
        self._ground = _ground(circuit_graph, title)
        self._circuit = _Circuit(usual.signals, circuit_graph)
        self._value, self._score = _Line(VALUE, usual.values), _Line(SCORE, usual.returns)

    def draw(self, moment: Moment, clock: str) -> np.ndarray:
        """The picture, with `clock` above the game."""
        frame = self._ground.copy()
        _show(frame, moment.screen)
        self._circuit.draw(frame, moment.signals)
        _actions(frame, self._anatomy, moment.probabilities, int(moment.action))
        self._value.draw(frame, moment.value, f"{moment.value:z.2f}")
        self._score.draw(frame, moment.score, f"{moment.score:,.0f}")
        _write(frame, (GAME.right, 42), clock, 15, GREY, "right")
        return frame


def circuit_frames(trace: Trace, circuit_graph: CircuitGraph, title: str) -> Iterator[np.ndarray]:
    """Each step's picture."""
    brain = CircuitRenderer(circuit_graph, title, trace)
    for t, moment in enumerate(moments(trace)):
        yield brain.draw(moment, f"{clock(t)}   step {t + 1:,} of {len(trace):,}")


def clock(steps: int) -> str:
    """Minutes and seconds of play."""
    seconds = steps // STEPS_PER_SECOND
    return f"{seconds // 60}:{seconds % 60:02d}"


def _ground(circuit_graph: CircuitGraph, title: str) -> np.ndarray:
    """What all pictures share."""
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    frame[:] = BACKGROUND
    _write(frame, (GAME.left, 8), _fitting(title, 22, GAME.width), 22, INK)
    _write(frame, (CIRCUIT.left - 10, 29), circuit_graph.about, 17, INK)
    note = "blue raises, orange lowers"
    if circuit_graph.in_blocks:
        note = "too many synapses for lines: layers as blocks of neurons"
    _write(frame, (ACTIONS.right, 31), note, 15, GREY, "right")
    places = circuit_graph.places()
    for column in circuit_graph.columns[:-1]:
        middle = CIRCUIT.left + _across(places[column.nodes, 0].mean())
        many = f"{len(column.nodes)} {column.kind}"
        _write(frame, (int(middle), CIRCUIT.top - 34), many, 15, GREY, "middle")
    _write(frame, (ACTIONS.left + 14, CIRCUIT.top - 34), "action", 15, GREY)
    for box, name in ((VALUE, "value"), (SCORE, "return")):
        _write(frame, (box.left, box.top - 28), name, 15, GREY)
    return frame


def _across(x: Any) -> Any:
    """X 0…1 of `CircuitGraph.places` → pixels; the actions stand in a box of their own."""
    return x * (ACTIONS.left - CIRCUIT.left)


class _Circuit:
    """The neurons and synapses, as strong as they are in usual signals (T, K).

    What a synapse lights up is worked out once: coverage (P, S) says how much of each of P pixels
    its line fills, so that a step's light is one sparse product. Neurons in the same way.
    """

    def __init__(self, usual: np.ndarray, circuit_graph: CircuitGraph) -> None:
        self._anatomy = circuit_graph
        places = circuit_graph.places()
        x, y = _across(places[:, 0]), places[:, 1] * CIRCUIT.height
        xy = np.stack([CIRCUIT.left - LIT.left + x, CIRCUIT.top - LIT.top + y], 1)
        self._drawn = np.flatnonzero(circuit_graph.drawn)
        self._most, strongest, _ = circuit_graph.scales(usual)
        self._strongest = strongest[self._drawn]
        shapes = _shapes(xy, circuit_graph)
        self._pixels, self._coverage = _lines(xy, shapes, circuit_graph.ends[self._drawn])
        self._spots = _spots(xy, shapes)
        self._picture = np.empty(LIT.height * LIT.width, np.uint32)  # a number is r, g, b, 0

    def draw(self, frame: np.ndarray, signals: np.ndarray) -> None:
        """signals (K,)."""
        picture = self._picture
        picture[:] = _GLOW[0]
        if len(self._drawn):
            strength = self._anatomy.currents(signals)[self._drawn] / self._strongest
            both = np.stack([np.maximum(strength, 0), np.maximum(-strength, 0)], 1)
            # To the power of 1.5 the many weak ones step back behind the few strong ones.
            light = self._coverage @ np.minimum(both, 1).astype(np.float32) ** 1.5
            level = np.minimum(light * (256 / BRIGHTEST), 255).astype(np.uint8)
            picture[self._pixels] = _GLOW[level.view(np.uint16)[:, 0]]
        activity = signals[: self._anatomy.nodes] / self._most
        pixels, node, alpha = self._spots
        bytes_ = picture.view(np.uint8).reshape(-1, 4)[:, :3]
        color, under = _diverging(activity)[node], bytes_[pixels]
        bytes_[pixels] = under + (color - under) * alpha[:, None]
        frame[LIT.top : LIT.bottom, LIT.left : LIT.right] = bytes_.reshape(LIT.height, -1, 3)


BRIGHTEST = 4.0  # lines on one pixel that saturate it


def _glow() -> np.ndarray:
    """(65536,): the colour, as r, g, b, 0, of raising and lowering light, a byte each."""
    light = 1 - np.exp(-0.9 * BRIGHTEST / 256 * np.arange(256))[:, None]
    color = light * np.array(RAISES) + light[:, None] * np.array(LOWERS) + BACKGROUND
    pixels = np.zeros((256, 256, 4), np.uint8)
    pixels[..., :3] = np.minimum(color, 255)
    return pixels.view(np.uint32).ravel()


_GLOW = _glow()


def _lines(xy: np.ndarray, shapes: list[_Shape], ends: np.ndarray) -> tuple[np.ndarray, csr_array]:
    """Lines between nodes, from edge to edge → the pixels (P,) that they touch, and how much of
    them, (P, S).
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
        # Each point lights its four nearest pixels, all together as much as the line is long.
        length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
        x, y = np.floor(line).astype(int).T
        dx, dy = (line - np.floor(line)).T
        for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
            rows.append((y + below) * LIT.width + x + right)
            columns.append(np.full(points, synapse))
            share = (dx if right else 1 - dx) * (dy if below else 1 - dy)
            amounts.append(share * length / points)
    place = np.concatenate(rows)
    touched = np.zeros(LIT.width * LIT.height, bool)
    touched[place] = True
    pixels, row = np.flatnonzero(touched), (np.cumsum(touched) - 1)[place]
    where = row.astype(np.int32), np.concatenate(columns).astype(np.int32)
    entries = np.concatenate(amounts).astype(np.float32), where
    coverage = csr_array(entries, shape=(len(pixels), len(ends)))
    coverage.data[coverage.data < 0.05] = 0  # nobody sees it
    coverage.eliminate_zeros()
    return pixels, coverage


class _Shape(NamedTuple):
    """Of one node: inputs and blocks are cells of a heat map, other neurons discs."""

    half_width: float
    half_height: float
    cell: bool


def _shapes(xy: np.ndarray, circuit_graph: CircuitGraph) -> list[_Shape]:
    """One a node; as large as its column leaves room for."""
    shapes = [_Shape(0, 0, False)] * circuit_graph.nodes
    for column in circuit_graph.columns:
        across, down = (np.unique(xy[column.nodes, axis].round(3)) for axis in (0, 1))
        pitch = CIRCUIT.height / len(down)
        if circuit_graph.is_block(column):
            wide = np.diff(across).min() if len(across) > 1 else 20.0
            shape = _Shape(max(min(wide, 20) / 2 - 0.5, 0.6), max(pitch / 2 - 0.5, 0.6), True)
        else:
            shape = _Shape(min(0.42 * pitch, 8.0), min(0.42 * pitch, 8.0), False)
        for node in column.nodes:
            shapes[node] = shape
    return shapes


def _spots(xy: np.ndarray, shapes: list[_Shape]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels (P,) of all nodes, whose they are (P,) and how much of each (P,)."""
    found = []
    for node, ((x, y), (half_width, half_height, cell)) in enumerate(zip(xy, shapes, strict=True)):
        columns = np.arange(int(x - half_width) - 1, int(x + half_width) + 3)
        rows = np.arange(int(y - half_height) - 1, int(y + half_height) + 3)
        dx, dy = np.abs(columns - x), np.abs(rows - y)[:, None]
        if cell:
            alpha = np.clip(half_width + 0.5 - dx, 0, 1) * np.clip(half_height + 0.5 - dy, 0, 1)
        else:
            alpha = np.clip(half_width + 0.5 - np.hypot(dx, dy), 0, 1)
        lit = alpha > 0
        place = (rows[:, None] * LIT.width + columns)[lit]
        found.append((place, np.full(len(place), node), alpha[lit]))
    pixels, nodes, alphas = (np.concatenate(part) for part in zip(*found, strict=True))
    return pixels, nodes, alphas.astype(np.float32)


def _diverging(values: np.ndarray) -> np.ndarray:
    """values (n,) of -1…1 → colours (n, 3) float32 of 0…255."""
    strength = np.minimum(np.abs(values), 1)[:, None] ** 0.8
    color = np.where(
        values[:, None] >= 0, np.array(RAISES, np.float32), np.array(LOWERS, np.float32)
    )
    return np.array(FAINT, np.float32) + strength * (color - np.array(FAINT, np.float32))


def _show(frame: np.ndarray, screen: np.ndarray) -> None:
    """The screen, enlarged by a whole number, in the middle of its box."""
    height, width, _ = screen.shape
    scale = max(min(GAME.width // width, GAME.height // height), 1)
    height, width = scale * height, scale * width
    left, top = (GAME.left + GAME.right - width) // 2, (GAME.top + GAME.bottom - height) // 2
    # Columns first: rows are then copied whole.
    frame[top : top + height, left : left + width] = screen.repeat(scale, 1).repeat(scale, 0)


def _actions(
    frame: np.ndarray, circuit_graph: CircuitGraph, probabilities: np.ndarray, taken: int
) -> None:
    """A bar for each action, beside its node; the one taken is bright."""
    left, right = ACTIONS.left + 14, ACTIONS.right
    pitch = ACTIONS.height / len(probabilities)
    half = int(min(pitch / 2 - 1, 15))
    for index, probability in enumerate(probabilities):
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
        name = circuit_graph.names[-len(probabilities) + index]
        _write(frame, (left + 10, y - size // 2 - 2), name, size, color)
        _write(frame, (right - 8, y - size // 2 - 2), f"{probability:.0%}", size, color, "right")


class _Line:
    """The last 20 s of a number as a line that runs to the left."""

    def __init__(self, box: Box, usual: np.ndarray) -> None:
        self._box = box
        self._low, self._high = float(usual.min()), float(usual.max())
        self._past: deque[float] = deque(maxlen=LINE_STEPS)

    def draw(self, frame: np.ndarray, value: float, now: str) -> None:
        self._past.append(value)
        self._low, self._high = min(self._low, value), max(self._high, value)
        margin = 0.06 * (self._high - self._low) or 1.0
        top_value = self._high + margin
        pixels = (self._box.height - 1) / (top_value - self._low + margin)
        left, top, right, bottom = self._box
        area, zero = frame[top:bottom, left:right], top_value * pixels  # from the top
        if 0 < zero < self._box.height - 1:
            area[round(zero)] = FAINT
        rows = (top_value - np.array(self._past)) * pixels
        steps = np.linspace(1 - LINE_STEPS, 0, self._box.width)  # a column each; now is 0
        past = steps >= 1 - len(rows)
        y = np.interp(steps[past], np.arange(1 - len(rows), 1), rows)
        before = np.r_[y[:1], y[:-1]]
        # How much of each pixel lies between this column's height and the one before.
        upper, lower = np.minimum(y, before) - 0.8, np.maximum(y, before) + 0.8
        row = np.arange(self._box.height)[:, None]
        alpha = np.clip(np.minimum(row + 0.5, lower) - np.maximum(row - 0.5, upper), 0, 1)
        own, column = np.nonzero(alpha)
        place = own, column + np.argmax(past)
        under = area[place]
        area[place] = under + (np.array(RAISES, np.float32) - under) * alpha[own, column][:, None]
        _write(frame, (right, top - 30), now, 17, INK, "right")


def _write(
    frame: np.ndarray,
    place: tuple[int, int],
    text: str,
    size: int,
    color: Color,
    align: str = "left",
) -> None:
    """Text with its top at `place`."""
    mask = _mask(text, size)
    x, y = place
    x -= {"left": 0, "middle": mask.shape[1] // 2, "right": mask.shape[1]}[align]
    mask = mask[:, : max(frame.shape[1] - x, 0)]
    part = frame[y : y + mask.shape[0], x : x + mask.shape[1]]
    part[:] = part + (np.array(color, np.float32) - part) * mask[..., None]


def _fitting(text: str, size: int, width: int) -> str:
    """The text, or as much of it as fits in a width."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    length = next(n for n in range(len(text), 0, -1) if font.getlength(f"{text[:n]}…") <= width)
    return f"{text[:length]}…"


@functools.lru_cache(4096)
def _mask(text: str, size: int) -> np.ndarray:
    """(height, width) float32 of 0…1; digits are equally wide only by chance."""
    font = ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(text)
    picture = Image.new("L", (max(int(right - left), 1), round(1.4 * size)))
    ImageDraw.Draw(picture).text((-left, 0), text, fill=255, font=font)
    return np.asarray(picture, np.float32) / 255
