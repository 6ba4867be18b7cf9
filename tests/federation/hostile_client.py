"""`fedkd deploy client SITE.toml` by somebody who means harm."""

import sys
from pathlib import Path

from fedkd.federation.deploy import processes, supernode
from fedkd.federation.deploy.site import Policy

if __name__ == "__main__":
    processes.end_with_parent()
    supernode.EXECUTOR = "hostile_executor"
    supernode.serve(Policy.load(Path(sys.argv[1])))
