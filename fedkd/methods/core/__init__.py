"""What every method shares: its base, its context, what both sides know, and its protection."""
