"""Secure aggregation on the wire: four messages a round, what a client refuses, who it believes."""
