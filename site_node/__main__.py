"""`python -m site_node`."""

from site_node.cli import main

main()
