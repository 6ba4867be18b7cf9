"""Folders of pictures, and what is told of them."""
