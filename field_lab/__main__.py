"""`python -m field_lab`."""

from field_lab.cli import main

main()
