"""What `flowstream run` does once its options are read.

start.py       what the command does, from its options to its exit code
supervisor.py  pipelines side by side, from the first connection to the last commit
summary.py     what a run did, and how to continue
reload.py      the run as a process that is started again when a source changes
"""
