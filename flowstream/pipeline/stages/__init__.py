"""The stages of a run, one file each: the way of a message, in the order of the room's page.

A stage is given those that it hands messages to. What it is doing is in `RunState.stages`, where it
enters itself: so a drain knows when all are idle, and a full window when all of them wait.
"""
