"""Settings for all tests."""

from hypothesis import settings

# The machines that run the tests may be busy: a slow example is not a failed one.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
