"""The LSTM that circuits are compared with: torch's own, with resets."""

import pytest
import torch

from ncp_agents.agents import saved_policy
from ncp_agents.agents.recipe import Circuit, Recipe
from ncp_agents.sb3.circuits import make_circuit

B, T, INPUTS, N = 3, 7, 5, 4


def test_without_resets_it_is_torchs_own():
    torch.manual_seed(0)
    circuit = make_circuit(INPUTS, N, "lstm")
    x, h, c = torch.randn(B, T, INPUTS), torch.randn(B, N), torch.randn(B, N)
    states, (h1, c1) = circuit.states(x, (h, c))
    expected, (h2, c2) = circuit.rnn_cell(x, (h[None], c[None]))
    torch.testing.assert_close(states, expected)
    torch.testing.assert_close((h1, c1), (h2[0], c2[0]))
    torch.testing.assert_close(circuit.states(x)[0], circuit.rnn_cell(x)[0])


def test_a_reset_forgets_only_its_own_row():
    """Each row equals torch's LSTM run alone on its chunks."""
    torch.manual_seed(0)
    circuit = make_circuit(INPUTS, N, "lstm")
    x, hx = torch.randn(B, T, INPUTS), (torch.randn(B, N), torch.randn(B, N))
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[0, 0] = resets[1, 3] = resets[1, 5] = resets[2, 3] = True
    states, _ = circuit.states(x, hx, resets=resets)
    for row in range(B):
        state = tuple(part[row][None] for part in hx)
        for t in range(T):
            if resets[row, t]:
                state = tuple(torch.zeros_like(part) for part in state)
            output, state = circuit.rnn_cell(x[row, t][None], state)
            torch.testing.assert_close(states[row, t], output[0])


def test_a_recipe_builds_acts_and_counts_parameters():
    recipe = Recipe(circuit=Circuit(cell="lstm", wiring="dense", units=16))
    network = saved_policy.build(recipe)
    policy = saved_policy.SavedPolicy(recipe, network)
    observation = torch.randint(0, 255, (2, 1, 84, 84), dtype=torch.uint8).numpy()
    actions, state = policy.predict(observation)
    assert actions.shape == (2,)
    assert all(abs(part).max() > 0 for part in policy.predict(observation, state)[1])
    inputs = recipe.policy.features
    expected = 4 * 16 * (inputs + 16 + 2)  # four gates, two biases each
    assert sum(p.numel() for p in network.circuit.parameters()) == expected


@pytest.mark.parametrize(
    ("circuit", "message"),
    [
        ({"cell": "lstm"}, "expected 'dense'"),
        ({"cell": "lstm", "wiring": "dense", "mixed_memory": True}, "mixed_memory"),
    ],
)
def test_what_an_lstm_has_not_is_refused(circuit, message):
    with pytest.raises(ValueError, match=message):
        Circuit(**circuit)
