"""A policy as one ONNX file, with the circuit's state as an explicit input and output.

The model is of one step or, with `sequence`, of whole sequences of any length; B and T are dynamic:

    observation  (B, C, H, W) or (B, T, C, H, W) uint8: the scaling is inside
    state        (B, Z) float32: zeros at first, then the last call's new_state
    reset        (B,) or (B, T) bool: True where the state is cleared before that step
      → logits   (B, A) or (B, T, A): the actions' log-probabilities
        value    (B,) or (B, T)
        new_state (B, Z)

The file's metadata have the names of the policy and its game, and as JSON its actions, its
protocol, and the arguments of ALE's `AtariVectorEnv` that makes such frames, as
`scripts/play_onnx.py` does.

Axes: B batch, T steps, C, H, W image, A actions, N neurons, Z = N, or 2 N with mixed memory: the
state of the neurons and then that of the memory.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.games import action_meanings
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import evaluation_protocol, first_episodes, rollout
from ncp_agents.files import atomic_write
from ncp_agents.sb3.policies import CnnNcpPolicy
from ncp_agents.torch.scan import scan_steps
from ncp_agents.torch.sequence_layer import SequenceLayer
from ncp_agents.torch.threads import one_thread

if TYPE_CHECKING:
    from onnx import ModelProto

INPUTS = ("observation", "state", "reset")
OUTPUTS = ("logits", "value", "new_state")
CHUNK = 256  # steps of a sequence that are compared at once


@dataclass(frozen=True)
class Agreement:
    """The comparison of a file with its policy over one whole episode."""

    steps: int
    """All with the same greedy action."""
    difference: float
    """The largest, of all log-probabilities, values and states."""


def export(
    policy: SavedPolicy, path: Path, sequence: bool = False, rules: AtariProtocol | None = None
) -> Agreement:
    """Write a policy as one ONNX file, once it has taken the policy's actions for an episode.

    Args:
        policy: with a cell "cfc" or "ltc".
        path: the file.
        sequence: a model of whole sequences instead of one step.
        rules: of the episode, and for the metadata; None takes the recipe's protocol.

    Raises:
        UserError: an LSTM, onnx or onnxruntime missing, or another action; nothing is written then.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {missing[0]}; install it: pip install 'ncp-agents[onnx]'")
    if policy.recipe.circuit.cell == "lstm":
        raise UserError("export takes cells 'cfc' and 'ltc', got 'lstm'")
    import onnx

    rules = evaluation_protocol(policy, rules or policy.recipe.environment.protocol)
    game = policy.recipe.environment.game
    model = _export_step(policy)
    if sequence:
        model = _scan_over(model)
    metadata = {
        "policy": policy.name,
        "game": game,
        "actions": json.dumps(action_meanings(game)),
        "protocol": json.dumps(asdict(rules)),
        "emulator": json.dumps(_emulator(rules)),
    }
    onnx.helper.set_model_props(model, metadata)
    with atomic_write(path) as temporary:
        onnx.save(model, temporary)
        return _compare(temporary, policy, rules, CHUNK if sequence else 1)


def _emulator(rules: AtariProtocol) -> dict[str, object]:
    """Return the protocol as the arguments of ALE's vector environment."""
    return {
        "stack_num": rules.frame_stack,
        "img_height": rules.frame_size,
        "img_width": rules.frame_size,
        "frameskip": rules.frame_skip,
        "noop_max": rules.noop_max,
        "use_fire_reset": rules.fire_on_reset,
        "repeat_action_probability": rules.sticky_actions,
        "full_action_space": rules.full_action_space,
        "max_num_frames_per_episode": rules.max_frames,
        "reward_clipping": rules.clip_rewards,
    }


class _Step(nn.Module):
    """One step in plain torch: no kernels and no branches on values."""

    def __init__(self, network: CnnNcpPolicy) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, observation: Tensor, state: Tensor, reset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities (B, A), values (B,) and the new state (B, Z)."""
        network = self.network
        circuit = network.circuit
        assert isinstance(circuit, SequenceLayer)
        if not network.memory:
            reset = torch.ones_like(reset)
        features = network.extract_features(observation)
        assert isinstance(features, Tensor)  # recipes share the encoder
        h, c = state.chunk(2, -1) if circuit.use_mixed else (state, None)
        _, h, c = scan_steps(circuit.rnn_cell, circuit.lstm, features[None], h, c, 1.0, reset[None])
        actor = network.mlp_extractor.forward_actor(circuit.read_out(h))
        return (
            network.action_net(actor).log_softmax(-1),
            network.values(h, features).squeeze(-1),
            h if c is None else torch.cat([h, c], -1),
        )


def _export_step(policy: SavedPolicy) -> ModelProto:
    """Return the model of one step, with its weights."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    batch = torch.export.Dim("B")
    arguments = (
        torch.zeros(2, *(policy.network.observation_space.shape or ()), dtype=torch.uint8),
        torch.zeros(2, state_size(policy)),
        torch.zeros(2, dtype=torch.bool),
    )
    with _quiet():
        program = torch.onnx.export(
            _Step(policy.network).eval(),
            arguments,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=({0: batch},) * len(INPUTS),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # paths of source files, at every node
    return program.model_proto


def _scan_over(step: ModelProto) -> ModelProto:
    """Return the model of sequences: a step along axis 1 of its inputs, carrying the state."""
    from onnx import compose, helper

    body = compose.add_prefix(step, "step_").graph  # names are unique in a file
    weights = list(body.initializer)
    del body.initializer[:]
    inputs, outputs = list(step.graph.input), list(step.graph.output)
    # Scan takes the state first.
    for graph, order in ((body.input, (1, 0, 2)), (body.output, (2, 0, 1))):
        values = [graph[i] for i in order]
        del graph[:]
        graph.extend(values)
    for value in (*inputs, *outputs):
        if not value.name.endswith("state"):
            shape = value.type.tensor_type.shape
            shape.dim.add()
            for axis in range(len(shape.dim) - 1, 1, -1):
                shape.dim[axis].CopyFrom(shape.dim[axis - 1])
            shape.dim[1].dim_param = "T"
    loop = helper.make_node(
        "Scan",
        ["state", "observation", "reset"],
        ["new_state", "logits", "value"],
        body=body,
        num_scan_inputs=2,
        scan_input_axes=[1, 1],
        scan_output_axes=[1, 1],
    )
    graph = helper.make_graph([loop], "sequence", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)


def state_size(policy: SavedPolicy) -> int:
    """Return Z: N, or 2 N with mixed memory."""
    circuit = policy.network.circuit
    return circuit.state_size * (2 if circuit.use_mixed else 1)


def _compare(path: Path, policy: SavedPolicy, rules: AtariProtocol, chunk: int) -> Agreement:
    """Compare a file with its policy over an episode of the policy, `chunk` steps at a time."""
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    env = AtariVecEnv(policy.recipe.environment.game, 1, rules, seed=0)
    with closing(env), one_thread():
        steps = list(first_episodes(rollout(policy, env, deterministic=True), 1))
    observations = np.concatenate([step.observations for step in steps])
    resets = np.concatenate([step.resets for step in steps])
    actions = np.concatenate([step.actions for step in steps])

    circuit = policy.network.circuit
    state = np.ones((1, state_size(policy)), np.float32)  # the first step clears it
    states = tuple(torch.ones(1, 1, circuit.state_size) for _ in range(2))
    difference = 0.0
    lead = (1,) if chunk == 1 else (1, -1)
    for first in range(0, len(actions), chunk):
        now = slice(first, first + chunk)
        inputs = {
            "observation": observations[now].reshape(*lead, *observations.shape[1:]),
            "state": state,
            "reset": resets[now].reshape(lead),
        }
        logits, values, state = map(np.asarray, session.run(None, inputs))
        logits = logits.reshape(-1, logits.shape[-1])
        with torch.no_grad():
            distribution, expected_values, states = policy.network.distribution_and_values(
                torch.from_numpy(observations[now]), states, torch.from_numpy(resets[now]).float()
            )
        expected = distribution.distribution.logits  # type: ignore[attr-defined]
        different = np.flatnonzero(logits.argmax(-1) != actions[now])
        if len(different):
            raise UserError(
                f"the exported model takes another action at step {first + different[0]} than "
                f"{policy.name}; nothing was written"
            )
        pairs = [
            (logits, expected),
            (values.ravel(), expected_values[:, 0]),
            (state, torch.cat(states[: 1 + circuit.use_mixed], -1)[0]),
        ]
        difference = max(difference, *(float(np.abs(a - b.numpy()).max()) for a, b in pairs))
    return Agreement(len(actions), difference)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's notes on its exporter's own code."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name")  # all inputs share B
            yield
    finally:
        logger.setLevel(level)
