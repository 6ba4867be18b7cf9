"""What a user does: one command, one file."""
