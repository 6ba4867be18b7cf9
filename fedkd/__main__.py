"""`python -m fedkd`."""

from fedkd.cli import main

main()
