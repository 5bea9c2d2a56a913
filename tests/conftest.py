"""Settings for all tests."""

import contextlib
import os
import shutil
import threading

if shutil.which("nvidia-smi") is None:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which torch may do

with contextlib.suppress(ImportError):
    import triton  # noqa: F401  # before TensorFlow: both bring LLVM, and end the process otherwise

import pytest
from hypothesis import settings

# The machines that run the tests may be busy: a slow example is not a failed one.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


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
