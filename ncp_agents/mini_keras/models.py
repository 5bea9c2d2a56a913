"""`keras.models`."""

from keras.models import *  # noqa: F403  # pyright: ignore[reportWildcardImportFromLibrary]
