"""`python -m fedkd`."""

from fedkd.cli import script

script()
