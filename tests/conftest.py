"""Settings and fixtures for all tests."""

import threading
from importlib.util import find_spec

import pytest
from hypothesis import settings

# The machines that run the tests may be busy: a slow example is not a failed one.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_runtest_setup(item):
    if item.get_closest_marker("tensorflow") and find_spec("tensorflow") is None:
        pytest.skip("needs TensorFlow, which has an environment of its own: make test-tf")


@pytest.fixture
def no_screen(monkeypatch):
    """SDL draws into memory."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def server():
    """Serves an archive, and does not always behave."""
    from archive_server import Server

    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
