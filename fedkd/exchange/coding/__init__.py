"""How answers are written on the wire: in fewer bits, as differences, or not again for a while."""
