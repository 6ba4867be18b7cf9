"""What a run says while it goes on, for other processes to follow."""
