"""The command line: `ncp-agents COMMAND`, a module of this folder for each command.

Options are the fields of dataclasses, read by tyro. A module is imported when its command is run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

from ncp_agents import __version__, registry
from ncp_agents.errors import NonFiniteError, UserError

WORK_FAILED, USER_MISTAKE = 1, 2  # exit codes
SIGNALLED = 128  # plus the signal's number, as shells report it

COMMANDS = {
    "train": ("POLICY", "train a policy from its recipe"),
    "record": ("POLICY", "record demonstrations by a saved policy or a person"),
    "clone": ("POLICY", "clone a policy from demonstrations"),
    "evaluate": ("POLICY...", "score saved policies; film or watch their episodes"),
    "plot": ("RUN...", "draw the learning curves of runs"),
    "report": ("POLICY...", "write the README.md of saved policies"),
    "export": ("POLICY", "export a saved policy as an ONNX file"),
    "convert": ("FILE FILE", "convert a layer between torch, Keras and MLX"),
    "policies": ("", "list the saved policies with their scores"),
    "wiring": ("[POLICY]", "draw the wiring of a circuit"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0, 1 (the work failed), 2 (a mistake in the options or files) or 128 plus a
        signal's number.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack – or …
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        return SIGNALLED + 13  # SIGPIPE, which Windows does not have
    except (UserError, OSError) as error:  # OSError: a full or unwritable disk
        print(f"ncp-agents: {error}", file=sys.stderr)
        return USER_MISTAKE
    except SystemExit as end:  # tyro has shown the help, or a mistake
        return int(end.code or 0)
    except MemoryError as error:
        print(f"ncp-agents: out of memory ({error}); choose smaller sizes", file=sys.stderr)
        return WORK_FAILED
    except NonFiniteError as error:
        print(f"ncp-agents: {error}", file=sys.stderr)
        return WORK_FAILED
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: ncp-agents COMMAND [OPTIONS]\n")
        for name, (operands, about) in COMMANDS.items():
            print(f"  {name} {operands}".ljust(22) + about)
        print("\n`ncp-agents COMMAND --help` explains each command and its options.")
        return 0 if arguments else USER_MISTAKE
    if arguments[0] == "--version":
        print(__version__)
        return 0
    registry.get("command", arguments[0], COMMANDS)
    return import_module(f"{__name__}.{arguments[0]}").main(arguments[1:])
