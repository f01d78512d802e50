"""The usage of each command: its arguments, options, help and examples.

A file here declares the commands whose work is in the file of the same name in `commands/`. Help,
completion and usage errors import only this room, so they are quick: it imports no client, no
pipeline and no event loop. When the command runs, `new_app(work=...)` imports the module of its
work, and calls the function of the same name with the values of the options.
"""
