"""One file for each command, or group of commands, of `flowstream`.

A command reads its options, asks the other rooms to do the work, and prints the result. What two
commands share is in a room named for what it does. Only `app.py` imports this room.
"""
