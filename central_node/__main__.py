"""`python -m central_node`."""

from central_node.cli import main

main()
