"""`python -m flowstream`: the command line."""

from flowstream.cli import main

main()
