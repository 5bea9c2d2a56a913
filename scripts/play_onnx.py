"""Run an episode with an exported policy: onnxruntime, NumPy and ALE are enough.

ncp-agents export pong-cfc
python scripts/play_onnx.py pong-cfc.onnx [SEED]

The model is one of a single step, without --sequence. SEED is the environment's, 0 by default.
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
env = AtariVectorEnv(about["game"], num_envs=1, **json.loads(about["emulator"]))
resets_at_life_loss = json.loads(about["protocol"])["life_loss"]
observation, info = env.reset(seed=np.array([int(*sys.argv[2:]) if sys.argv[2:] else 0]))
state = np.zeros((1, session.get_inputs()[1].shape[-1]), np.float32)
done, reset, score, steps = False, np.array([True]), 0.0, 0
while not done:
    inputs = {"observation": observation, "state": state, "reset": reset}
    logits, _, state = map(np.asarray, session.run(None, inputs))
    lives = info["lives"]
    observation, reward, terminated, truncated, info = env.step(logits.argmax(-1))
    done, score, steps = (terminated | truncated)[0], score + reward[0], steps + 1
    reset = resets_at_life_loss & (info["lives"] > 0) & (info["lives"] < lives)
print(f"{about['policy']} plays {about['game']}: score {score:,.0f} after {steps} steps")
