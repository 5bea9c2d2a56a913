"""A policy as one ONNX file, with the circuit's state as an explicit input and output.

Of one step, or with `sequence` of whole sequences of any length; every B and T fits:

    observation  (B, C, H, W) or (B, T, C, H, W) uint8: the scaling is inside
    state        (B, Z) float32: zeros at first, then the last call's new_state
    reset        (B,) or (B, T) bool: True where the state is forgotten before that step
      → logits   (B, A) or (B, T, A): the actions' log-probabilities
        value    (B,) or (B, T)
        new_state (B, Z)

The file's metadata name the policy and its game, and hold as JSON its actions, its protocol, and
the arguments of ALE's `AtariVectorEnv` that make such frames; `scripts/play_onnx.py` plays by them.

Axes: B batch, T steps, C, H, W image, A actions, N neurons, Z = N, or 2 N with mixed memory, whose
state is that of the neurons and then that of the memory.
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
from ncp_agents.cli.console import Terminal
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.games import action_meanings
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import evaluation_protocol, first_episodes, rollout
from ncp_agents.files import atomic_write, check_writable
from ncp_agents.sb3.policies import CnnNcpPolicy
from ncp_agents.torch.scan import scan_steps
from ncp_agents.torch.sequence_layer import SequenceLayer
from ncp_agents.torch.threads import one_thread

if TYPE_CHECKING:
    from onnx import ModelProto

INPUTS = ("observation", "state", "reset")
OUTPUTS = ("logits", "value", "new_state")
PIECE = 256  # steps of a sequence that are checked at once


@dataclass(frozen=True)
class Agreement:
    """How a file did beside the policy itself, in one whole game."""

    steps: int
    """With the same action in each."""
    difference: float
    """The largest, of all log-probabilities, values and states."""


def export(
    policy: SavedPolicy, path: Path, sequence: bool = False, rules: AtariProtocol | None = None
) -> Agreement:
    """Write a policy as one ONNX file, once it has played a game just as the policy does.

    Args:
        sequence: of whole sequences instead of one step.
        rules: of that game, scored, and in the metadata; None takes those of the policy's recipe.

    Raises:
        UserError: the extra 'onnx' is missing, the cell is an LSTM, or actions differ; then nothing
            is written.
    """
    _check_installed()
    if policy.recipe.circuit.cell == "lstm":
        raise UserError("export takes cells 'cfc' and 'ltc', got 'lstm', which is there to compare")
    import onnx

    rules = evaluation_protocol(policy, rules or policy.recipe.environment.protocol)
    game = policy.recipe.environment.game
    model = _one_step(policy)
    if sequence:
        model = _of_sequences(model)
    about = {
        "policy": policy.name,
        "game": game,
        "actions": json.dumps(action_meanings(game)),
        "protocol": json.dumps(asdict(rules)),
        "emulator": json.dumps(_emulator(rules)),
    }
    onnx.helper.set_model_props(model, about)
    with atomic_write(path) as temporary:
        onnx.save(model, temporary)
        return _agreement(temporary, policy, rules, PIECE if sequence else 1)


def _emulator(rules: AtariProtocol) -> dict[str, object]:
    """The protocol as ALE's vector environment takes it."""
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
    """What a file computes, of plain torch throughout: no kernels and no branches on values."""

    def __init__(self, network: CnnNcpPolicy) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, observation: Tensor, state: Tensor, reset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
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
            network._critic(h, features).squeeze(-1),
            h if c is None else torch.cat([h, c], -1),
        )


def _one_step(policy: SavedPolicy) -> ModelProto:
    """The ONNX model of one step, with its weights in it."""
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


def _of_sequences(step: ModelProto) -> ModelProto:
    """The same along axis 1 of its inputs, with the state handed on."""
    from onnx import compose, helper

    body = compose.add_prefix(step, "step_").graph  # names are unique in a file
    weights = list(body.initializer)
    del body.initializer[:]
    inputs, outputs = list(step.graph.input), list(step.graph.output)
    # Scan wants the state first.
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
    """Z: N, or 2 N with mixed memory"""
    circuit = policy.network.circuit
    return circuit.state_size * (2 if circuit.use_mixed else 1)


def _agreement(path: Path, policy: SavedPolicy, rules: AtariProtocol, chunk: int) -> Agreement:
    """Let the policy play a game, and both see it, `chunk` steps at a time."""
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    game = AtariVecEnv(policy.recipe.environment.game, 1, rules, seed=0)
    with closing(game), one_thread():
        steps = list(first_episodes(rollout(policy, game, deterministic=True), 1))
    observations = np.concatenate([step.observations for step in steps])
    starts = np.concatenate([step.resets for step in steps])
    actions = np.concatenate([step.actions for step in steps])

    state = np.ones((1, state_size(policy)), np.float32)  # which the first step forgets
    states = tuple(torch.ones(1, 1, policy.network.circuit.state_size) for _ in range(2))
    difference = 0.0
    lead = (1,) if chunk == 1 else (1, -1)
    for first in range(0, len(actions), chunk):
        now = slice(first, first + chunk)
        inputs = {
            "observation": observations[now].reshape(*lead, *observations.shape[1:]),
            "state": state,
            "reset": starts[now].reshape(lead),
        }
        results = session.run(None, inputs)
        logits, values, state = (np.asarray(result) for result in results)
        logits = logits.reshape(-1, logits.shape[-1])
        with torch.no_grad():
            distribution, expected_values, states = policy.network.distribution_and_values(
                torch.from_numpy(observations[now]), states, torch.from_numpy(starts[now]).float()
            )
        expected = distribution.distribution.logits  # type: ignore[attr-defined]
        other = np.flatnonzero(logits.argmax(-1) != actions[now])
        if len(other):
            raise UserError(
                f"the exported model takes another action at step {first + other[0]} than "
                f"{policy.name}; nothing was written"
            )
        pairs = [
            (logits, expected),
            (values.ravel(), expected_values[:, 0]),
            (state, torch.cat(states[: 1 + policy.network.circuit.use_mixed], -1)[0]),
        ]
        difference = max(difference, *(float(np.abs(a - b.numpy()).max()) for a, b in pairs))
    return Agreement(len(actions), difference)


def _check_installed() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"export needs {missing[0]}, which is missing; install it: "
            "pip install 'ncp-agents[onnx]'"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own notes on its exporter's code."""
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


def export_command(policy: SavedPolicy, output: Path | None = None, sequence: bool = False) -> Path:
    """Export and print what was found.

    Args:
        output: ends in .onnx; None takes the policy's name.

    Raises:
        UserError: as `export`, and another ending.
    """
    output = Path(f"{policy.name}.onnx") if output is None else output
    if output.suffix != ".onnx":
        raise UserError(f"output {output} ends in {output.suffix!r}, expected .onnx")
    check_writable(output, "--output")
    agreement = export(policy, output, sequence)
    Terminal().print(
        f"one game, {agreement.steps:,} steps: the same actions as the policy's; largest "
        f"difference {agreement.difference:.1e}\nmodel: {output}, "
        f"{output.stat().st_size / 1e6:.2f} MB",
        soft_wrap=True,
    )
    return output
