"""Tasks whose records are texts; one task, one file."""
