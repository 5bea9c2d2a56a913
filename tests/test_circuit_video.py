"""Frames of a circuit show what it computed: traces, currents, stored frames and pictures."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from test_evaluation import RecordingPolicy
from test_rendering import decode

from ncp_agents.agents.recipe import Circuit, Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, build, load
from ncp_agents.agents.zoo import find
from ncp_agents.cli.evaluate import Evaluate
from ncp_agents.cli.evaluate_one import evaluate_one
from ncp_agents.envs import AtariVecEnv
from ncp_agents.envs.protocol import protocol
from ncp_agents.evaluation.evaluate import evaluate
from ncp_agents.evaluation.rollout import env_factory, env_groups, first_episodes, rollout
from ncp_agents.explain.activations import ActivationRecorder, record_trace
from ncp_agents.explain.circuit_graph import ConductanceSynapses, circuit_graph
from ncp_agents.explain.frame_store import SEGMENT, FrameStore
from ncp_agents.rendering.circuit_layout import MAX_LINES, CircuitLayout
from ncp_agents.rendering.circuit_video import (
    CIRCUIT,
    GAME,
    CircuitRenderer,
    circuit_frames,
    live_circuit_frames,
)
from ncp_agents.rendering.window import Window

SHORT = protocol("v4", max_frames=160)  # 40 steps an episode
NAMES = ("pong-cfc", "pong-ltc")


@pytest.fixture(scope="module", params=NAMES)
def policy(request):
    return load(find(request.param))


@pytest.fixture(scope="module")
def played(policy):
    """Two episodes."""
    return record_trace(policy, 2, SHORT, seed=4)


def fresh(**circuit):
    torch.manual_seed(3)
    recipe = Recipe(circuit=Circuit(**circuit))
    return SavedPolicy(recipe, build(recipe))


def test_a_trace_is_of_the_policys_own_episodes(policy, played):
    env = AtariVecEnv("pong", 1, SHORT.evaluation(), seed=4, render_mode="rgb_array")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        recorder = RecordingPolicy(policy)
        steps = list(first_episodes(rollout(recorder, env), 2))
    assert len(played) == len(steps) == len(played.frames) == 80
    np.testing.assert_array_equal(played.actions, [step.actions[0] for step in steps])
    np.testing.assert_array_equal(played.resets, [step.resets[0] for step in steps])
    np.testing.assert_array_equal(played.rewards, [step.rewards[0] for step in steps])
    states = np.stack([state[0][0, 0] for state in recorder.states])
    np.testing.assert_allclose(played.state, states, rtol=1e-5, atol=1e-6)
    for frame, step in zip(played.frames, steps, strict=True):
        np.testing.assert_array_equal(frame, step.rgb_frames[0])

    network = policy.network
    observations = np.concatenate([step.observations for step in steps])
    zero = torch.zeros(1, 1, 64)
    with torch.no_grad():
        obs, _ = network.obs_to_tensor(observations)
        starts = torch.as_tensor(played.resets, dtype=torch.float32)
        distribution, values, _ = network.distribution_and_values(obs, (zero, zero), starts)
    np.testing.assert_allclose(
        played.probabilities, distribution.distribution.probs, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(played.values, values[:, 0], rtol=1e-4, atol=1e-5)


def test_the_previous_state_is_zero_after_a_reset(played):
    first = np.flatnonzero(played.resets)
    assert len(first) == 2
    assert not played.previous_state[first].any()
    np.testing.assert_array_equal(played.previous_state[1 : first[1]], played.state[: first[1] - 1])


def test_returns_are_of_their_own_episodes(played):
    cut = int(np.flatnonzero(played.ends)[0]) + 1
    changed = dataclasses.replace(played, rewards=np.where(np.arange(80) % 7 == 0, 1.0, 0.0))
    np.testing.assert_array_equal(changed.returns[:cut], np.cumsum(changed.rewards[:cut]))
    np.testing.assert_array_equal(changed.returns[cut:], np.cumsum(changed.rewards[cut:]))


@pytest.mark.parametrize("mode", ["default", "no_gate", "pure"])
@pytest.mark.parametrize("wiring", ["AutoNCP", "dense"])
def test_currents_of_a_cfc_are_the_terms_of_its_heads(mode, wiring):
    policy = fresh(mode=mode, wiring=wiring, units=20, motor_neurons=4)
    played = record_trace(policy, protocol=SHORT)
    graph = circuit_graph(policy)
    target, currents = graph.ends[:, 1], graph.currents(played.signals)
    assert currents.dtype == np.float32
    cell = policy.network.circuit.rnn_cell
    x, start = played.features, 0
    for layer in cell.cells if wiring == "AutoNCP" else [cell]:
        own = slice(start, start + layer.hidden_size)
        z = torch.as_tensor(np.concatenate([x, played.previous_state[:, own]], 1))
        with torch.no_grad():
            heads = [z @ weight.T + bias for weight, bias in layer.heads()]
            drives = [z @ weight.T for weight, _ in layer.heads()]
        gate, state = torch.as_tensor(played.gates[:, own]), played.state[:, own]
        if mode == "default":
            drive = (1 - gate) * drives[0] + gate * drives[1]
            expected = (1 - gate) * torch.tanh(heads[0]) + gate * torch.tanh(heads[1])
            np.testing.assert_allclose(state, expected, atol=1e-5)
        elif mode == "no_gate":
            drive = drives[0] + gate * drives[1]
            np.testing.assert_allclose(
                state, torch.tanh(heads[0]) + gate * torch.tanh(heads[1]), atol=1e-5
            )
        else:
            drive = drives[0]
        for i in range(layer.hidden_size):
            into = target == graph.inputs + start + i
            np.testing.assert_allclose(currents[:, into].sum(1), drive[:, i], atol=1e-5)
        x, start = state, own.stop


def test_currents_of_an_ltc_at_rest_balance_its_leak():
    policy = load(find("pong-ltc"))
    circuit, graph = policy.network.circuit, circuit_graph(policy)
    features = torch.rand(1, 1, 64).expand(1, 2000, 64)
    with torch.no_grad():
        states, _ = circuit.states(features)
    np.testing.assert_allclose(states[0, -1], states[0, -2], atol=1e-6)  # at rest
    v = states[0, -1].numpy()
    signals = np.concatenate([features[0, -1], v, np.zeros(6), v, np.zeros(64)]).astype(np.float32)
    membrane = circuit.rnn_cell.membrane()
    leak = (membrane.leak * (membrane.rest - states[0, -1])).detach().numpy()
    currents, target = graph.currents(signals), graph.ends[:, 1]
    for i in range(64):
        into = target == 64 + i
        assert currents[into].sum() + leak[i] == pytest.approx(0, abs=1e-3)


def test_currents_into_the_actions_are_their_scores(policy, played):
    graph = circuit_graph(policy)
    currents, target = graph.currents(played.signals), graph.ends[:, 1]
    first = graph.nodes - 6
    scores = np.stack([currents[:, target == first + i].sum(1) for i in range(6)], 1)
    motor = policy.network.circuit.read_out(torch.as_tensor(played.state))
    constant = policy.network.action_net(motor).detach().numpy() - scores
    np.testing.assert_allclose(constant, constant[:1].repeat(len(played), 0), atol=1e-5)


def test_neurons_have_the_names_of_the_wiring_in_either_order_of_the_state(policy):
    graph = circuit_graph(policy)
    wiring = policy.network.circuit.wiring
    kinds = [column.kind for column in graph.columns]
    assert kinds == ["sensory", "inter", "command", "motor", "action"]
    for column in graph.columns[1:-1]:
        numbers = [int(graph.names[node].split()[1]) for node in column.nodes]
        assert numbers == sorted(numbers)
        assert all(wiring.get_type_of_neuron(j) == column.kind for j in numbers)
    assert graph.names[64] == ("inter 35" if policy.name == "pong-cfc" else "motor 0")
    # The lines are the wiring's synapses; an LTC's command neurons have theirs among themselves.
    number = {i: int(name.split()[1]) for i, name in enumerate(graph.names[:-6])}
    last = len(graph.ends) - len(graph.synapses[-1].source)
    drawn = [
        (number[a], number[b], a < 64)
        for a, b in graph.ends[:last][CircuitLayout(graph).drawn[:last]].tolist()
    ]
    expected = {(a, b, True) for a, b in np.argwhere(wiring.sensory_adjacency_matrix).tolist()}
    internal = np.argwhere(wiring.adjacency_matrix).tolist()
    if policy.name == "pong-cfc":
        internal = [
            (a, b)
            for a, b in internal
            if wiring.get_type_of_neuron(a) != wiring.get_type_of_neuron(b)
        ]
    expected |= {(a, b, False) for a, b in internal}
    assert len(drawn) == len(expected)
    assert set(drawn) == expected


def test_an_ltc_synapse_by_hand():
    one = np.ones(1, np.float32)
    synapse = ConductanceSynapses(
        np.array([0]), np.array([1]), weight=2 * one, slope=4 * one, offset=2 * one, pull=-2 * one
    )
    signals = np.array([0.5, 0.25], np.float32)  # sigmoid(4 * 0.5 - 2) = 1/2
    assert synapse.currents(signals) == pytest.approx([2 * 0.5 * (-1 - 0.25)])


def test_stored_frames_are_the_original_ones():
    random = np.random.default_rng(0)
    colors = random.integers(0, 256, (128, 3), np.uint8)
    store, frames = FrameStore(), []
    for t in range(2 * SEGMENT + 3):
        frames.append(colors[random.integers(0, 2 + t % 100, (9, 7))])
        store.append(frames[-1])
    assert len(store) == len(frames)
    assert len(store.segments) == 3
    for stored, frame in zip(store, frames, strict=True):
        np.testing.assert_array_equal(stored, frame)


def test_beyond_256_colours_the_nearest_is_stored():
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    store = FrameStore()
    store.append(greys)
    other = greys.copy()
    other[3, 4] = (200, 201, 202)
    store.append(other)
    expected = other.copy()
    expected[3, 4] = 201
    for stored, frame in zip(store, (greys, expected), strict=True):
        np.testing.assert_array_equal(stored, frame)
    assert len(store.palette) == 256


def test_a_frame_shows_the_game_and_the_strongest_neuron(policy, played):
    graph = circuit_graph(policy)
    frames = list(itertools.islice(circuit_frames(played, graph, "pong"), 30))
    assert all(frame.shape == (720, 1280, 3) and frame.dtype == np.uint8 for frame in frames)
    game = next(iter(played.frames)).repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(frames[0][GAME.top : GAME.bottom, GAME.left : GAME.right], game)
    # A motor neuron is blue above zero and orange below.
    motor = graph.columns[-2].nodes
    node = int(motor[np.abs(played.state[:30, motor - 64]).max(0).argmax()])
    x, y = CircuitLayout(graph).places[node]
    row, column = CIRCUIT.top + y * CIRCUIT.height, CIRCUIT.left + x * (1030 - CIRCUIT.left)
    for t, frame in enumerate(frames):
        red, _, blue = frame[round(row), round(column)].astype(int)
        activity = played.signals[t, node]
        if abs(activity) > 0.2:
            assert np.sign(blue - red) == np.sign(activity)


def test_a_long_name_is_cut_to_the_space_there_is(policy, played):
    frame = next(circuit_frames(played, circuit_graph(policy), "a policy of a long name " * 9))
    named = next(circuit_frames(played, circuit_graph(policy), "short"))
    np.testing.assert_array_equal(frame[:, GAME.right + 2 :], named[:, GAME.right + 2 :])


def test_a_silent_circuit_has_no_light(policy, played):
    quiet = dataclasses.replace(
        played,
        features=np.zeros_like(played.features),
        state=np.zeros_like(played.state),
        previous_state=np.zeros_like(played.previous_state),
    )
    graph = circuit_graph(policy)
    gap = slice(CIRCUIT.left + 30, CIRCUIT.left + 90)  # between inputs and inter neurons
    area = [
        next(itertools.islice(circuit_frames(trace, graph, ""), 30, None))[
            CIRCUIT.top : CIRCUIT.bottom, gap
        ]
        for trace in (played, quiet)
    ]
    assert (area[0] > 60).mean() > 0.05
    if policy.name == "pong-cfc":  # a quiet LTC still has currents through half-open synapses
        assert (area[1] == area[1][0, 0]).all()


@pytest.mark.parametrize(
    "circuit",
    [
        {"wiring": "dense"},
        {"wiring": "dense", "cell": "ltc"},
        {"wiring": "dense", "cell": "lstm"},
        {"units": 300, "motor_neurons": 32},
        {"units": 24, "motor_neurons": 4, "mixed_memory": True},
        {"units": 24, "motor_neurons": 24, "wiring": "FullyConnected"},
    ],
)
def test_every_circuit_can_be_shown(circuit):
    policy = fresh(**circuit)
    graph = circuit_graph(policy)
    played = record_trace(policy, protocol=protocol("v4", max_frames=20))
    assert np.isfinite(graph.currents(played.signals)).all()
    assert CircuitLayout(graph).in_blocks == (len(graph.ends) > 2 * MAX_LINES)
    places = CircuitLayout(graph).places
    assert len(np.unique(places, axis=0)) == graph.nodes
    assert places.min() >= 0
    assert len(list(circuit_frames(played, graph, "a circuit"))) == 5


def test_with_mixed_memory_the_previous_state_is_the_memory_cells_output():
    policy = fresh(units=24, motor_neurons=4, mixed_memory=True)
    played = record_trace(policy, protocol=protocol("v4", max_frames=40))
    cell = policy.network.circuit.rnn_cell
    with torch.no_grad():
        _, state = cell(torch.as_tensor(played.features), torch.as_tensor(played.previous_state))
    np.testing.assert_allclose(played.state, state, atol=1e-5)


def test_video_and_page_of_the_same_episode(tmp_path, capsys):
    policy = fresh(wiring="dense")
    video, page = tmp_path / "circuit.mp4", tmp_path / "page.html"
    short = protocol("v4", max_frames=40)
    evaluate_one(
        policy, Evaluate(episodes=1, protocol=short, video=video, show_circuit=True, page=page)
    )
    frames, about = decode(video)
    assert frames.shape == (10, 720, 1280, 3)
    assert about["fps"] == 15
    assert "pong" in page.read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "drawn as blocks" in printed
    assert f"page: {page}" in printed


def test_live_frames_are_those_of_the_video_but_for_the_clock():
    policy = load(find("pong-cfc"))
    played, graph = record_trace(policy, 2, SHORT, seed=4), circuit_graph(policy)
    with env_groups(policy, env_factory(policy, SHORT, render=True), 1, seed=4) as [(same, env)]:
        recorder = ActivationRecorder(same)
        steps = itertools.islice(rollout(recorder, env), len(played))
        renderer = CircuitRenderer(graph, "pong", played)
        live = [frame for _, frame in live_circuit_frames(steps, recorder, renderer)]
    filmed = list(circuit_frames(played, graph, "pong"))
    assert len(live) == len(filmed) == 80
    clock = slice(42, GAME.top), slice(GAME.left, GAME.right)
    assert any((a[clock] != b[clock]).any() for a, b in zip(live, filmed, strict=True))
    for frame in (*live, *filmed):
        frame[clock] = 0
    # Time gates of one step and of all at once are rounded differently.
    np.testing.assert_allclose(np.array(live, int), filmed, rtol=0, atol=5)


@pytest.mark.usefixtures("no_screen")
def test_the_window_shows_the_circuit_beside_the_episodes_that_count(tmp_path, monkeypatch):
    policy, short = load(find("pong-cfc")), protocol("v4", max_frames=80)
    frames = []
    show = Window.show
    monkeypatch.setattr(
        Window, "show", lambda self, frame: frames.append(frame) or show(self, frame)
    )
    scores = tmp_path / "scores.json"
    result = evaluate_one(
        policy,
        Evaluate(episodes=2, protocol=short, render="human", show_circuit=True, output=scores),
    )
    assert [frame.shape for frame in frames] == [(720, 1280, 3)] * 40
    assert result == evaluate(policy, 2, short, num_envs=1)
    assert scores.exists()
