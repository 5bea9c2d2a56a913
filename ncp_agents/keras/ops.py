"""`keras.ops` and `keras.tree` without types: what they take and return is the backend's own."""

from typing import Any

import keras

Tensor = Any
ops: Any = keras.ops
tree: Any = keras.tree
