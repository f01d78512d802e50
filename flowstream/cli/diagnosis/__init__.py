"""What `flowstream check` and `flowstream doctor` examine, and how they report it.

findings.py   one line for each check, and the exit code
pipelines.py  the streams, permissions and offsets that pipelines need at the broker
broker.py     is the broker reachable and usable
machine.py    Python, extras and limits of this machine
"""
