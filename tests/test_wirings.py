"""Wirings: the circuits of ncps 1.0.1 seed for seed, idempotent build, round trips, limits."""

import copy
import json
import pickle
import tomllib

import ncps.wirings as upstream
import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

import ncp_agents.wirings as ours
from ncp_agents.registry import UnknownNameError
from ncp_agents.wirings import (
    NCP,
    AutoNCP,
    FullyConnected,
    Random,
    Wiring,
    wiring_from_config,
    wiring_to_config,
)


def hand_made():
    wiring = Wiring(4)
    wiring.set_output_dim(2)
    wiring.add_synapse(0, 1, 1)
    wiring.add_synapse(3, 3, -1)
    return wiring


# One of each kind, unbuilt
KINDS = {
    "Wiring": hand_made,
    "FullyConnected": lambda: FullyConnected(6, 2, erev_init_seed=3, self_connections=False),
    "Random": lambda: Random(7, 3, sparsity_level=0.4, random_seed=5),
    "NCP": lambda: NCP(8, 5, 2, 4, 3, 6, 2, seed=9),
    "AutoNCP": lambda: AutoNCP(16, 3, sparsity_level=0.6, seed=11),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
seeds = st.integers(0, 2**32 - 1)


def built(wiring, input_dim=5):
    wiring.build(input_dim)
    return wiring


def assert_same(one, other):
    np.testing.assert_array_equal(one.adjacency_matrix, other.adjacency_matrix)
    assert (one.sensory_adjacency_matrix is None) == (other.sensory_adjacency_matrix is None)
    if one.sensory_adjacency_matrix is not None:
        np.testing.assert_array_equal(one.sensory_adjacency_matrix, other.sensory_adjacency_matrix)
    assert (one.units, one.input_dim, one.output_dim) == (
        other.units,
        other.input_dim,
        other.output_dim,
    )


def assert_same_as_upstream(kind, input_dim, *args, **options):
    """Equal before build and after, in every public method."""
    reference = getattr(upstream, kind)(*args, **options)
    wiring = getattr(ours, kind)(*args, **options)
    assert_same(wiring, reference)
    reference.build(input_dim)
    wiring.build(input_dim)
    assert_same(wiring, reference)
    assert wiring.adjacency_matrix.dtype == reference.adjacency_matrix.dtype
    assert wiring.num_layers == reference.num_layers
    for layer in range(reference.num_layers):
        assert wiring.get_neurons_of_layer(layer) == reference.get_neurons_of_layer(layer)
    for neuron in range(reference.units):
        assert wiring.get_type_of_neuron(neuron) == reference.get_type_of_neuron(neuron)
    np.testing.assert_array_equal(wiring.erev_initializer(), reference.erev_initializer())
    assert wiring.synapse_count == reference.synapse_count
    theirs, own = reference.get_graph(), wiring.get_graph()
    assert dict(own.nodes(data=True)) == dict(theirs.nodes(data=True))
    assert sorted(own.edges(data="polarity")) == sorted(theirs.edges(data="polarity"))


# Parity with ncps 1.0.1


@pytest.mark.parametrize("sparsity_level", [0.1, 0.5, 0.77, 0.99])
@pytest.mark.parametrize("seed", [0, 22222, 2**32 - 1])
@pytest.mark.parametrize(
    ("units", "output_size", "input_dim"), [(4, 1, 1), (28, 4, 20), (21, 17, 3), (64, 8, 64)]
)
def test_auto_ncp_is_that_of_ncps(units, output_size, input_dim, seed, sparsity_level):
    assert_same_as_upstream("AutoNCP", input_dim, units, output_size, sparsity_level, seed)


@settings(deadline=None, max_examples=40)
@given(st.data(), *[st.integers(1, 15)] * 4, st.integers(0, 12), seeds)
def test_ncp_is_that_of_ncps(data, inter, command, motor, input_dim, recurrent, seed):
    fans = [data.draw(st.integers(0, size)) for size in (inter, command, command)]
    assert_same_as_upstream(
        "NCP", input_dim, inter, command, motor, *fans[:2], recurrent, fans[2], seed=seed
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 20), st.integers(1, 15), st.booleans(), seeds)
def test_fully_connected_is_that_of_ncps(units, input_dim, self_connections, seed):
    assert_same_as_upstream(
        "FullyConnected", input_dim, units, None, seed, self_connections=self_connections
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 20), st.integers(1, 15), st.floats(0, 1, exclude_max=True), seeds)
def test_random_is_that_of_ncps(units, input_dim, sparsity_level, seed):
    assert_same_as_upstream("Random", input_dim, units, 1, sparsity_level, seed)


@pytest.mark.parametrize("kind", ["AutoNCP", "Random", "FullyConnected"])
def test_configs_of_ncps_load(kind):
    reference = getattr(upstream, kind)(12, 3)
    wiring = getattr(ours, kind).from_config(reference.get_config())
    assert_same(built(wiring), built(reference))


def test_config_of_a_plain_wiring_of_ncps_loads():
    reference = upstream.Wiring(3)
    reference.add_synapse(1, 2, -1)
    assert_same(Wiring.from_config(reference.get_config()), reference)
    reference.build(2)
    reference.add_sensory_synapse(0, 1, 1)
    reference.set_output_dim(2)
    assert_same(Wiring.from_config(reference.get_config()), reference)


# Structure


def test_ncp_synapses_join_only_the_layers_they_should():
    wiring = built(AutoNCP(40, 6, seed=1))
    inter, command, motor = wiring.layers
    allowed = np.zeros_like(wiring.adjacency_matrix)
    for sources, targets in ((inter, command), (command, command), (command, motor)):
        allowed[np.ix_(sources, targets)] = 1
    assert not wiring.adjacency_matrix[allowed == 0].any()
    assert not wiring.sensory_adjacency_matrix[:, command + motor].any()


@settings(deadline=None, max_examples=25)
@given(st.integers(4, 40), st.integers(1, 30), st.floats(0, 1, exclude_max=True), seeds)
def test_every_neuron_of_an_auto_ncp_is_connected(units, input_dim, sparsity_level, seed):
    wiring = built(AutoNCP(units, 1, sparsity_level, seed), input_dim)
    inter, command, motor = wiring.layers
    assert wiring.sensory_adjacency_matrix[:, inter].any(axis=0).all()
    assert wiring.adjacency_matrix[inter][:, command].any(axis=0).all()
    assert wiring.adjacency_matrix[command][:, motor].any(axis=1).all()
    assert wiring.adjacency_matrix[command][:, motor].any(axis=0).all()


def test_sparsity_zero_is_dense():
    auto = built(AutoNCP(20, 4, sparsity_level=0.0))
    inter, command, motor = auto.layers
    assert auto.sensory_adjacency_matrix[:, inter].all()
    assert auto.adjacency_matrix[np.ix_(inter, command)].all()
    assert auto.adjacency_matrix[np.ix_(command, motor)].all()
    random = built(Random(6, sparsity_level=0.0))
    assert random.adjacency_matrix.all()
    assert random.sensory_adjacency_matrix.all()


def test_layers_hold_every_neuron_once_from_inputs_to_motor():
    wiring = AutoNCP(10, 2)
    assert sorted(id_ for layer in wiring.layers for id_ in layer) == list(range(10))
    assert wiring.layers[-1] == [0, 1]
    assert FullyConnected(3).layers == [[0, 1, 2]]
    wiring.layers[0].clear()
    assert wiring.layers[0]  # a copy was handed out


def test_counts_are_plain_ints_and_count_their_own_matrix():
    wiring = built(hand_made(), 3)
    wiring.add_sensory_synapse(2, 0, -1)
    assert (wiring.synapse_count, wiring.sensory_synapse_count) == (2, 1)
    assert type(wiring.synapse_count) is int
    assert type(wiring.sensory_synapse_count) is int


def test_published_size_of_auto_ncp_64_8():
    wiring = built(AutoNCP(64, 8), 128)
    assert (wiring.synapse_count, wiring.sensory_synapse_count) == (484, 2176)


def test_graph_can_leave_out_the_sensory_neurons():
    wiring = built(AutoNCP(10, 2), 4)
    assert len(wiring.get_graph()) == 14
    assert len(wiring.get_graph(include_sensory_neurons=False)) == 10
    assert wiring.get_graph(False).number_of_edges() == wiring.synapse_count


# Build


@each_kind
def test_building_again_changes_nothing(make):
    wiring = built(make())
    before = copy.deepcopy(wiring)
    wiring.build(5)
    wiring.set_input_dim(np.int64(5))
    assert_same(wiring, before)


@each_kind
def test_building_for_another_size_is_refused(make):
    wiring = built(make())
    with pytest.raises(ValueError, match="built for 5 inputs"):
        wiring.build(6)
    assert wiring.input_dim == 5


@each_kind
def test_sensory_synapses_need_a_built_wiring(make):
    wiring = make()
    assert not wiring.is_built()
    for ask in (
        wiring.sensory_erev_initializer,
        wiring.get_graph,
        lambda: wiring.sensory_synapse_count,
        lambda: wiring.add_sensory_synapse(0, 0, 1),
    ):
        with pytest.raises(ValueError, match="build"):
            ask()
    assert built(wiring).is_built()


# Round trips


@each_kind
@pytest.mark.parametrize("input_dim", [None, 5])
@pytest.mark.parametrize("edited", [False, True])
def test_config_round_trips_through_json_and_toml(make, input_dim, edited):
    wiring = make()
    if input_dim:
        wiring.build(input_dim)
    if edited:
        wiring.add_synapse(1, 0, 1)
        wiring.add_synapse(0, 1, -1)
        wiring.set_output_dim(1)
    config = wiring_to_config(wiring)
    assert json.loads(json.dumps(config)) == config
    assert tomllib.loads(tomli_w.dumps(config)) == config
    again = wiring_from_config(config)
    assert type(again) is type(wiring)
    assert_same(again, wiring)
    assert_same(type(wiring).from_config(wiring.get_config()), wiring)
    # An unbuilt copy must sample the same sensory synapses
    assert_same(built(again), built(wiring))


def test_config_of_an_unedited_wiring_is_short():
    assert wiring_to_config(built(AutoNCP(28, 4), 20)) == {
        "kind": "AutoNCP",
        "units": 28,
        "output_size": 4,
        "sparsity_level": 0.5,
        "seed": 22222,
        "input_dim": 20,
    }


def test_removed_synapses_survive_the_round_trip():
    wiring = built(AutoNCP(12, 2))
    wiring.adjacency_matrix[:] = 0
    wiring.sensory_adjacency_matrix[0] = 0
    assert_same(wiring_from_config(wiring_to_config(wiring)), wiring)


@pytest.mark.parametrize("kind", [AutoNCP, Random, FullyConnected])
def test_a_wiring_without_a_seed_round_trips_too(kind):
    seed_name = {AutoNCP: "seed", Random: "random_seed", FullyConnected: "erev_init_seed"}[kind]
    one, other = (kind(30, 4, **{seed_name: None}) for _ in range(2))
    assert one.get_config()[seed_name] != other.get_config()[seed_name]
    assert_same(built(kind.from_config(one.get_config())), built(one))


@each_kind
@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_are_equal_and_independent(make, is_built, clone):
    wiring = built(make()) if is_built else make()
    twin = clone(wiring)
    assert_same(twin, wiring)
    assert_same(built(twin), built(wiring))
    twin.adjacency_matrix[0, 0] = 7
    assert wiring.adjacency_matrix[0, 0] != 7
    assert twin != wiring  # wirings compare by identity


def test_polarities_are_handed_out_as_copies():
    wiring = built(AutoNCP(12, 2))
    wiring.erev_initializer()[:] = 7
    wiring.sensory_erev_initializer(shape=(5, 12), dtype="float32")[:] = 7
    assert abs(wiring.adjacency_matrix).max() == 1
    assert abs(wiring.sensory_adjacency_matrix).max() == 1


# Errors


def config(**keys):
    return lambda: Wiring.from_config(keys)


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda: Wiring(0), "units is 0"),
        (lambda: Wiring(2.0), "units is 2.0"),
        (lambda: Wiring(3).set_output_dim(4), "output_dim is 4"),
        (lambda: FullyConnected(3, 0), "output_dim is 0"),
        (lambda: Random(3, sparsity_level=1.0), "sparsity_level is 1.0"),
        (lambda: Random(3, sparsity_level=float("nan")), "sparsity_level is nan"),
        (lambda: Random(3, sparsity_level="half"), "sparsity_level is 'half'"),
        (lambda: AutoNCP(8, 6), "at least 9 units"),
        (lambda: AutoNCP(8, 0), "output_size is 0"),
        (lambda: AutoNCP(8, 2, seed=2**32), "seed is 4294967296"),
        (lambda: NCP(0, 3, 2, 1, 1, 1, 1), "inter_neurons is 0"),
        (lambda: NCP(4, 3, 2, 5, 1, 1, 1), "sensory_fanout is 5"),
        (lambda: NCP(4, 3, 2, 1, 4, 1, 1), "inter_fanout is 4"),
        (lambda: NCP(4, 3, 2, 1, 1, 1, 4), "motor_fanin is 4"),
        (lambda: NCP(4, 3, 2, 1, 1, -1, 1), "recurrent_command_synapses is -1"),
        (lambda: AutoNCP(8, 2).get_neurons_of_layer(3), "layer_id is 3"),
        (lambda: AutoNCP(8, 2).build(0), "input_dim is 0"),
        (lambda: Wiring(3).add_synapse(3, 0, 1), "src is 3"),
        (lambda: Wiring(3).add_synapse(0, 0, 0), "polarity is 0"),
        (lambda: built(Wiring(3)).add_sensory_synapse(5, 0, 1), "src is 5"),
        (lambda: Wiring(3).get_type_of_neuron(0), "set_output_dim"),
        (lambda: AutoNCP.from_config({"units": 8}), "output_size"),
        (config(units=2, adjacency_matrix=[[0]]), r"\(1, 1\)"),
        (config(units=1, adjacency_matrix=[[2]]), "adjacency_matrix"),
        (config(units=1, sensory_adjacency_matrix=[[1]]), "input_dim"),
        (lambda: wiring_from_config({"units": 8}), "kind"),
        (lambda: wiring_from_config({"kind": "AutNCP"}), "did you mean 'AutoNCP'"),
        (lambda: wiring_from_config({"kind": "AutoNCP", "unit": 8}), "did you mean 'units'"),
    ],
)
def test_limits_are_checked(make, fact):
    with pytest.raises(ValueError, match=fact):
        make()


def test_numpy_integers_are_welcome_and_end_up_plain():
    wiring = AutoNCP(np.int64(12), np.int32(3), np.float32(0.5), np.uint32(7))
    assert {type(value) for value in wiring.get_config().values()} == {int, float}


def test_a_subclass_is_not_taken_for_a_known_kind():
    class Mine(AutoNCP):
        pass

    with pytest.raises(UnknownNameError, match="Mine"):
        wiring_to_config(Mine(8, 2))
