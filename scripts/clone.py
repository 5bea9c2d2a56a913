"""`ncp-agents clone` as a script: the same options; --help explains them."""

import sys

from ncp_agents.cli import main

if __name__ == "__main__":
    sys.exit(main(["clone", *sys.argv[1:]]))
