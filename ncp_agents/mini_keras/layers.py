"""`keras.layers`, and ours."""

from keras.layers import *  # noqa: F403  # pyright: ignore[reportWildcardImportFromLibrary]

from ncp_agents.keras import *  # noqa: F403
