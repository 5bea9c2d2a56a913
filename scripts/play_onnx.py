"""Play a game with an exported policy: onnxruntime, NumPy and ALE are enough.

ncp-agents export pong-cfc
python scripts/play_onnx.py pong-cfc.onnx [SEED]

The model is one of a single step, without --sequence. SEED is that of the game, 0 unless given.
"""

import json
import sys

import numpy as np
import onnxruntime
from ale_py.vector_env import AtariVectorEnv

if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    print(__doc__)
    sys.exit(len(sys.argv) < 2)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
game = AtariVectorEnv(about["game"], num_envs=1, **json.loads(about["emulator"]))
forgets = json.loads(about["protocol"])["life_loss"]  # where a life is lost
observation, info = game.reset(seed=np.array([int(*sys.argv[2:]) if sys.argv[2:] else 0]))
state = np.zeros((1, session.get_inputs()[1].shape[-1]), np.float32)
over, reset, score, steps = False, np.array([True]), 0.0, 0
while not over:
    inputs = {"observation": observation, "state": state, "reset": reset}
    logits, _, state = map(np.asarray, session.run(None, inputs))
    before = info["lives"]
    observation, reward, terminated, truncated, info = game.step(logits.argmax(-1))
    over, score, steps = (terminated | truncated)[0], score + reward[0], steps + 1
    reset = forgets & (info["lives"] > 0) & (info["lives"] < before)
print(f"{about['policy']} plays {about['game']}: score {score:,.0f} after {steps} steps")
