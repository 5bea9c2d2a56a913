"""Keeps TensorFlow out where nobody asked for it; imported before stable-baselines3.

stable-baselines3 loads tensorboard, which loads TensorFlow where it is installed: three seconds,
and the end of the process if Triton is loaded afterwards, for both bring LLVM. tensorboard looks
for a module of this name to do without, as it does where TensorFlow is not installed.
"""

import sys
from types import ModuleType

SWITCH = "tensorboard.compat.notf"

if "tensorflow" not in sys.modules:
    sys.modules.setdefault(SWITCH, ModuleType(SWITCH))
