"""The federation: the round loop, its apps, its grids. The only room that knows Flower."""

import os

# Read when Flower and Ray are imported: a framework for private data tells nobody that it runs.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
