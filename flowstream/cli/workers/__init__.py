"""`flowstream run --workers N`: a parent process, and N worker processes that run the pipelines.

The parent runs no pipeline and imports none of the user's modules. Single active consumers share
the partitions of super streams among the workers, so the broker decides who reads what. Parent and
workers talk over a socket pair, which nobody else can open and which ends with either of them.

Read in this order:

    decisions.py      which process is started, drained or killed, and when. Pure
    balance.py        which worker subscribes when, so that the load is even. Pure
    holdings.py       which worker reads which partition, and whether all are read again. Pure
    messages.py       what parent and workers tell each other, as bounded frames of JSON
    link.py           the worker's end of the socket
    parent_watch.py   the end of a worker that is blocked, when its parent is gone
    process.py        the parent's end, with the process and its output
    parent.py         the run of the parent, from the first worker to the last result
    results.py        results that workers report, and their sum
    cores.py          how many workers `auto` is
    control.py        the socket of `flowstream workers`
"""
