"""What is shown of a circuit is what it computed: traces, currents, screens and pictures."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from test_rendering import decode

from ncp_agents.agents.recipe import Circuit, Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, build, load
from ncp_agents.agents.zoo import find
from ncp_agents.cli.watching import record_trace
from ncp_agents.envs import AtariVecEnv
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.evaluate import evaluate_command
from ncp_agents.evaluation.rollout import first_episodes, rollout
from ncp_agents.explain.circuit_graph import MAX_LINES, ConductanceSynapses, circuit_graph
from ncp_agents.explain.frame_store import SEGMENT, FrameStore
from ncp_agents.rendering.circuit_video import CIRCUIT, GAME, circuit_frames

SHORT = protocol("v4", max_frames=160)  # 40 steps a game
NAMES = ("pong-cfc", "pong-ltc")


@pytest.fixture(scope="module", params=NAMES)
def policy(request):
    return load(find(request.param))


@pytest.fixture(scope="module")
def played(policy):
    """Two games."""
    return record_trace(policy, games=2, protocol=SHORT, seed=4)


def fresh(**circuit):
    torch.manual_seed(3)
    recipe = Recipe(circuit=Circuit(**circuit))
    return SavedPolicy(recipe, build(recipe))


def test_a_trace_is_the_game_that_the_policy_plays(policy, played):
    env = AtariVecEnv("pong", 1, SHORT.evaluation(), seed=4, render_mode="rgb_array")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        steps = list(first_episodes(rollout(policy, env), 2))
    assert len(played) == len(steps) == len(played.screens) == 80
    np.testing.assert_array_equal(played.actions, [step.actions[0] for step in steps])
    np.testing.assert_array_equal(played.resets, [step.resets[0] for step in steps])
    np.testing.assert_array_equal(played.rewards, [step.rewards[0] for step in steps])
    states = np.stack([step.state[0][0, 0] for step in steps])
    np.testing.assert_allclose(played.state, states, rtol=1e-5, atol=1e-6)
    for shown, step in zip(played.screens, steps, strict=True):
        np.testing.assert_array_equal(shown, step.rgb_frames[0])

    network = policy.network
    observations = np.concatenate([step.observations for step in steps])
    zero = torch.zeros(1, 1, 64)
    with torch.no_grad():
        seen, _ = network.obs_to_tensor(observations)
        starts = torch.as_tensor(played.resets, dtype=torch.float32)
        distribution, values, _ = network.distribution_and_values(seen, (zero, zero), starts)
    np.testing.assert_allclose(
        played.probabilities, distribution.distribution.probs, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(played.values, values[:, 0], rtol=1e-4, atol=1e-5)


def test_a_game_starts_from_nothing(played):
    first = np.flatnonzero(played.resets)
    assert len(first) == 2
    assert not played.before[first].any()
    np.testing.assert_array_equal(played.before[1 : first[1]], played.state[: first[1] - 1])


def test_returns_are_scores_of_their_own_games(played):
    cut = int(np.flatnonzero(played.ends)[0]) + 1
    changed = dataclasses.replace(played, rewards=np.where(np.arange(80) % 7 == 0, 1.0, 0.0))
    np.testing.assert_array_equal(changed.returns[:cut], np.cumsum(changed.rewards[:cut]))
    np.testing.assert_array_equal(changed.returns[cut:], np.cumsum(changed.rewards[cut:]))


@pytest.mark.parametrize("mode", ["default", "no_gate", "pure"])
@pytest.mark.parametrize("wiring", ["AutoNCP", "dense"])
def test_currents_of_a_cfc_are_what_its_heads_add_up(mode, wiring):
    policy = fresh(mode=mode, wiring=wiring, units=20, motor_neurons=4)
    played = record_trace(policy, protocol=SHORT)
    body = circuit_graph(policy)
    target, currents = body.ends[:, 1], body.currents(played.signals)
    assert currents.dtype == np.float32
    cell = policy.network.circuit.rnn_cell
    x, start = played.features, 0
    for layer in cell.cells if wiring == "AutoNCP" else [cell]:
        own = slice(start, start + layer.hidden_size)
        z = torch.as_tensor(np.concatenate([x, played.before[:, own]], 1))
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
            into = target == body.inputs + start + i
            np.testing.assert_allclose(currents[:, into].sum(1), drive[:, i], atol=1e-5)
        x, start = state, own.stop


def test_currents_of_an_ltc_at_rest_balance_its_leak():
    policy = load(find("pong-ltc"))
    circuit, body = policy.network.circuit, circuit_graph(policy)
    features = torch.rand(1, 1, 64).expand(1, 2000, 64)
    with torch.no_grad():
        states, _ = circuit.states(features)
    np.testing.assert_allclose(states[0, -1], states[0, -2], atol=1e-6)  # at rest
    v = states[0, -1].numpy()
    signals = np.concatenate([features[0, -1], v, np.zeros(6), v, np.zeros(64)]).astype(np.float32)
    membrane = circuit.rnn_cell.membrane()
    leak = (membrane.leak * (membrane.rest - states[0, -1])).detach().numpy()
    currents, target = body.currents(signals), body.ends[:, 1]
    for i in range(64):
        into = target == 64 + i
        assert currents[into].sum() + leak[i] == pytest.approx(0, abs=1e-3)


def test_currents_into_the_actions_are_their_scores(policy, played):
    body = circuit_graph(policy)
    currents, target = body.currents(played.signals), body.ends[:, 1]
    first = body.nodes - 6
    scores = np.stack([currents[:, target == first + i].sum(1) for i in range(6)], 1)
    motor = policy.network.circuit.read_out(torch.as_tensor(played.state))
    constant = policy.network.action_net(motor).detach().numpy() - scores
    np.testing.assert_allclose(constant, constant[:1].repeat(len(played), 0), atol=1e-5)


def test_neurons_have_the_names_of_the_wiring_in_either_order_of_the_state(policy):
    body = circuit_graph(policy)
    wiring = policy.network.circuit.wiring
    kinds = [column.kind for column in body.columns]
    assert kinds == ["sensory", "inter", "command", "motor", "action"]
    for column in body.columns[1:-1]:
        numbers = [int(body.names[node].split()[1]) for node in column.nodes]
        assert numbers == sorted(numbers)
        assert all(wiring.get_type_of_neuron(j) == column.kind for j in numbers)
    assert body.names[64] == ("inter 35" if policy.name == "pong-cfc" else "motor 0")
    # The lines are the wiring's synapses; an LTC's command neurons have theirs among themselves.
    number = {i: int(name.split()[1]) for i, name in enumerate(body.names[:-6])}
    last = len(body.ends) - len(body.synapses[-1].source)
    drawn = [
        (number[a], number[b], a < 64) for a, b in body.ends[:last][body.drawn[:last]].tolist()
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


def test_screens_come_back_as_they_were():
    random = np.random.default_rng(0)
    colors = random.integers(0, 256, (128, 3), np.uint8)
    screens, shown = FrameStore(), []
    for t in range(2 * SEGMENT + 3):
        screen = colors[random.integers(0, 2 + t % 100, (9, 7))]
        screens.append(screen)
        shown.append(screen)
    assert len(screens) == len(shown)
    assert len(screens.segments) == 3
    for kept, screen in zip(screens, shown, strict=True):
        np.testing.assert_array_equal(kept, screen)
    with pytest.raises(ValueError, match=r"screen 131 has shape \(9, 8\), expected \(9, 7\)"):
        screens.append(np.zeros((9, 8, 3), np.uint8))


def test_more_than_256_colours_are_shown_as_the_nearest():
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    screens = FrameStore()
    screens.append(greys)
    other = greys.copy()
    other[3, 4] = (200, 201, 202)
    screens.append(other)
    expected = other.copy()
    expected[3, 4] = 201
    for kept, screen in zip(screens, (greys, expected), strict=True):
        np.testing.assert_array_equal(kept, screen)
    assert len(screens.palette) == 256


def test_a_picture_shows_the_screen_and_the_strongest_neuron(policy, played):
    body = circuit_graph(policy)
    frames = list(itertools.islice(circuit_frames(played, body, "pong"), 30))
    assert all(frame.shape == (720, 1280, 3) and frame.dtype == np.uint8 for frame in frames)
    screen = next(iter(played.screens)).repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(frames[0][GAME.top : GAME.bottom, GAME.left : GAME.right], screen)
    # A motor neuron is blue above zero and orange below.
    motor = body.columns[-2].nodes
    node = int(motor[np.abs(played.state[:30, motor - 64]).max(0).argmax()])
    x, y = body.places()[node]
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
        before=np.zeros_like(played.before),
    )
    body = circuit_graph(policy)
    gap = slice(CIRCUIT.left + 30, CIRCUIT.left + 90)  # between inputs and inter neurons
    area = [
        next(itertools.islice(circuit_frames(trace, body, ""), 30, None))[
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
    body = circuit_graph(policy)
    played = record_trace(policy, protocol=protocol("v4", max_frames=20))
    assert np.isfinite(body.currents(played.signals)).all()
    assert body.in_blocks == (len(body.ends) > 2 * MAX_LINES)
    places = body.places()
    assert len(np.unique(places, axis=0)) == body.nodes
    assert places.min() >= 0
    assert len(list(circuit_frames(played, body, "a circuit"))) == 5


def test_mixed_memory_is_read_as_the_circuit_reads_it():
    policy = fresh(units=24, motor_neurons=4, mixed_memory=True)
    played = record_trace(policy, protocol=protocol("v4", max_frames=40))
    cell = policy.network.circuit.rnn_cell
    with torch.no_grad():
        _, state = cell(torch.as_tensor(played.features), torch.as_tensor(played.before))
    np.testing.assert_allclose(played.state, state, atol=1e-5)


def test_video_with_the_brain_and_page_of_the_same_game(tmp_path, capsys):
    policy = fresh(wiring="dense")
    video, page = tmp_path / "brain.mp4", tmp_path / "page.html"
    short = protocol("v4", max_frames=40)
    evaluate_command(policy, episodes=1, protocol=short, video=video, brain=True, page=page)
    frames, about = decode(video)
    assert frames.shape == (10, 720, 1280, 3)
    assert about["fps"] == 15
    assert "pong" in page.read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "drawn as blocks" in said
    assert f"page: {page}" in said.replace("\n", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brain": True}, "--brain is .* add --video game.mp4 or --render human"),
        ({"page": "page.txt"}, r"page .*page.txt ends in '.txt', expected .html"),
        ({"page": "file/page.html"}, r"cannot write .*page.html \(.*\); .* --page"),
        ({"page": "page.html", "video_games": 0}, "video_games is 0, expected >= 1"),
    ],
)
def test_mistakes_are_told_before_any_game(tmp_path, options, message):
    (tmp_path / "file").touch()
    if "page" in options:
        options = options | {"page": tmp_path / options["page"]}
    with pytest.raises(UserError, match=message):
        evaluate_command(fresh(), **options)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
