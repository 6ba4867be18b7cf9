"""Tables: rows of named columns, whatever file they are in."""
