"""The live view of runs on a terminal, for `flowstream run` and `flowstream top`.

fold.py       blocks of lines, fitted to a window
live_view.py  a run's snapshot as such blocks, and the display that draws them
"""
