"""The command line, run as users run it: a process of its own, through pipes or on a terminal."""
