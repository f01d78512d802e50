"""The parser: the command tree, options that commands share, and values of options.

group.py    the table of commands, whose modules are imported when they are used
command.py  a command: its defaults from the settings, and options without a value
options.py  options that several commands have
parsing.py  values as people write them: sizes, times, offsets, addresses
"""
