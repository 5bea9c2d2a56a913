"""`keras.backend`."""

from keras.backend import *  # noqa: F403  # pyright: ignore[reportWildcardImportFromLibrary]
