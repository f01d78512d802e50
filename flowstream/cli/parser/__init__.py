"""The command line's parser: options that commands share, and values as people write them.

options.py  shared options, help with examples, and the event loop of a command
parsing.py  sizes, times and offsets
"""
