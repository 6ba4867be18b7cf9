"""What happened to private data, what it costs, and the ledger that enforces a budget."""
