"""Methods in which the server makes its own inputs, by a generator or by inversion."""
