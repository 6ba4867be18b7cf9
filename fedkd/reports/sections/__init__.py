"""What the report of each kind of run holds."""
