"""What happened to private data, apart from what it costs."""
