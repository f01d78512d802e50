"""`python -m flowstream`: the command line."""

from flowstream.cli import main

if __name__ == "__main__":  # worker processes import this module, too
    main()
