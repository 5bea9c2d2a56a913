"""The command line: `ncp-agents train | record | clone | evaluate | …`, and the same as scripts.

Options are the fields of dataclasses, read by tyro; a user's mistake is one line and exit code 2.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper

from ncp_agents import registry
from ncp_agents.cli.clone import clone
from ncp_agents.cli.convert import convert, export
from ncp_agents.cli.evaluate import evaluate
from ncp_agents.cli.parsing import SIGNALLED, USER_MISTAKE, WORK_FAILED
from ncp_agents.cli.record import record
from ncp_agents.cli.show import plot, policies, report, wiring
from ncp_agents.cli.train import train
from ncp_agents.errors import NonFiniteError, UserError

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "record": record,
    "clone": clone,
    "evaluate": evaluate,
    "plot": plot,
    "report": report,
    "export": export,
    "convert": convert,
    "policies": policies,
    "wiring": wiring,
}

USAGE = """usage: ncp-agents COMMAND [OPTIONS]

  train POLICY      train a policy from its recipe, in a run folder
  record POLICY     record a saved policy's games, or a person's, as demos
  clone POLICY      clone a policy from demos
  evaluate POLICY…  play whole games with saved policies, and report their scores
  plot RUN…         draw the learning curves of runs
  report POLICY…    write a saved policy's README.md from its recipe and scores
  export POLICY     write a saved policy as an ONNX file
  convert FILE FILE convert a layer between torch, Keras and MLX
  policies          list the saved policies with their scores
  wiring [POLICY]   draw a circuit: who feeds whom, and with what sign

`ncp-agents COMMAND --help` explains each with its options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command → exit code: 0, 1 (the work failed), 2 (the user's mistake), 128 + signal."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack – or …
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who read the output has gone, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        return SIGNALLED + 13  # SIGPIPE, which Windows does not have
    except (UserError, OSError) as error:  # OSError: a full or unwritable disk
        print(f"ncp-agents: {error}", file=sys.stderr)
        return USER_MISTAKE
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
        print(USAGE)
        return 0 if arguments else USER_MISTAKE
    if arguments[0] == "--version":
        from ncp_agents import __version__

        print(__version__)
        return 0
    return registry.get("command", arguments[0], COMMANDS)(arguments[1:])
