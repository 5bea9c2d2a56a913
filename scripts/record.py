"""`ncp-agents record` as a script: the same options; --help explains them."""

import sys

from ncp_agents.cli import main

if __name__ == "__main__":
    sys.exit(main(["record", *sys.argv[1:]]))
