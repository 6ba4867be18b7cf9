"""What a person reads: pages, tables, and a run as it goes."""
