"""`keras.activations`."""

from keras.activations import *  # noqa: F403  # pyright: ignore[reportWildcardImportFromLibrary]
