"""What `flowstream run` does once its options are read.

start.py       what the command does, from its options to its exit code
supervisor.py  pipelines side by side, from the first connection to the last commit
ending.py      the end of a run: text or JSON, errors, exit code
summary.py     what a run did, and how to continue
copying.py     a run that copies a stream into a super stream
reload.py      the run as a process that is started again when a source changes
"""
