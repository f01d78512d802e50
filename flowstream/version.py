"""The version: the one place that says it, for the build, for users and for every room.

It is apart from the package's `__init__`, which imports rooms: a room that imported the version
from there would import what imports it.
"""

__version__ = "0.1.0"
