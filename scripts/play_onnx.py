"""Play a game with an exported policy: onnxruntime, NumPy and ALE are enough.

ncp-agents export pong-cfc
python scripts/play_onnx.py pong-cfc.onnx
"""

import argparse
import json

import numpy as np
import onnxruntime
from ale_py.vector_env import AtariVectorEnv

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="of one step, as `ncp-agents export` writes it")
parser.add_argument("--seed", type=int, default=0, help="of the game")
options = parser.parse_args()

session = onnxruntime.InferenceSession(options.model, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
rules = json.loads(about["protocol"])
game = AtariVectorEnv(
    about["game"],
    num_envs=1,
    stack_num=rules["frame_stack"],
    img_height=rules["frame_size"],
    img_width=rules["frame_size"],
    frameskip=rules["frame_skip"],
    noop_max=rules["noop_max"],
    use_fire_reset=rules["fire_on_reset"],
    repeat_action_probability=rules["sticky_actions"],
    full_action_space=rules["full_action_space"],
    max_num_frames_per_episode=rules["max_frames"],
    reward_clipping=False,
)
observation, _ = game.reset(seed=np.array([options.seed]))
state = np.zeros((1, session.get_inputs()[1].shape[1]), np.float32)
over, score, steps = np.array([True]), 0.0, 0
while steps == 0 or not over[0]:
    inputs = {"observation": observation, "state": state, "reset": over}
    logits, _, state = map(np.asarray, session.run(None, inputs))
    observation, reward, terminated, truncated, _ = game.step(logits.argmax(-1))
    over, score, steps = terminated | truncated, score + reward[0], steps + 1
print(f"{about['policy']} plays {about['game']}: score {score:g} after {steps} steps")
