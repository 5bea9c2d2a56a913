"""How the scripts beside this file end: an error of the user as one line, and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ncp_agents.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; exit with 2 on an error of the user or the disk, 130 on Ctrl-C."""
    try:
        main()
    except (UserError, OSError) as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
