"""`python -m ncp_agents` is `ncp-agents`."""

import sys

from ncp_agents.cli import main

sys.exit(main())
