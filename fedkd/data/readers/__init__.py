"""Files of data, one form a file."""
