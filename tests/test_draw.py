"""Pictures of wirings: every neuron and synapse is there, in its column and colour."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from ncp_agents.wirings import NCP, AutoNCP, FullyConnected
from ncp_agents.wirings.draw import POINTS, SYNAPSES, layout


def test_layers_stand_in_columns_from_inputs_to_motor_neurons():
    wiring = NCP(4, 3, 2, 2, 2, 2, 2)
    wiring.build(5)
    inputs, neurons = layout(wiring)
    assert (inputs[:, 0] == 0).all()
    assert neurons[:, 0].tolist() == [3, 3, 2, 2, 2, 1, 1, 1, 1]
    for column in (inputs, *(neurons[layer] for layer in wiring.layers)):
        assert (np.diff(column[:, 1]) < 0).all()  # the first at the top
        assert column[:, 1].mean() == pytest.approx(0.5)


@pytest.mark.parametrize("wiring", [AutoNCP(20, 4), FullyConnected(6, 2)])
def test_every_synapse_is_drawn_in_the_colour_of_its_sign(wiring):
    wiring.build(7)
    axes = wiring.draw()
    drawn = dict.fromkeys((color for _, color in SYNAPSES.values()), 0)
    for collection in axes.collections:
        if isinstance(collection, LineCollection):
            color = to_hex(collection.get_colors()[0]).upper()
            drawn[color] += len(collection.get_segments()) // (POINTS - 1)
    both = np.concatenate([wiring.adjacency_matrix, wiring.sensory_adjacency_matrix])
    assert drawn == {color: (both == sign).sum() for sign, (_, color) in SYNAPSES.items()}
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "7 sensory" in legend
    assert f"{(both == 1).sum()} excitatory" in legend


def test_neurons_carry_numbers_where_there_is_room():
    for units, shown in ((20, True), (90, False)):
        wiring = AutoNCP(units, 4)
        wiring.build(3)
        labels = [text.get_text() for text in wiring.draw().texts]
        assert (labels == [str(j) for j in range(units)]) is shown


def test_an_unbuilt_wiring_is_refused():
    with pytest.raises(ValueError, match="build"):
        AutoNCP(20, 4).draw()


def test_too_many_synapses_are_drawn_as_blocks():
    wiring = AutoNCP(300, 32)
    wiring.build(64)
    axes = wiring.draw()
    assert not axes.collections  # not a synapse by itself
    assert "too many to draw each" in axes.get_title()
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert texts[:4] == ["64 sensory", "161 inter", "107 command\n106 within", "32 motor"]
    between = [int(text.replace(",", "")) for text in texts[4:]]
    assert sum(between) + 106 == wiring.synapse_count + wiring.sensory_synapse_count


def test_a_block_counts_each_type_of_neuron():
    wiring = FullyConnected(150, 10)
    wiring.build(64)
    texts = [text.get_text() for text in wiring.draw().texts if text.get_text()]
    assert texts[:2] == ["64 sensory", "140 inter\n10 motor\n22,500 within"]
