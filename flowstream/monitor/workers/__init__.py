"""One face of several worker processes: their snapshots, metrics and checks as those of one run.

Figures are sums over all processes of the run, those that have ended too: a worker that is started
again does not take back what its predecessor counted.

Read in this order:

    views.py        what is known of each worker
    snapshots.py    snapshots of workers -> the snapshot of the run. Pure
    pipelines.py    the parts of them about one pipeline
    histories.py    the curves of workers -> curves of the run
    families.py     metrics of workers -> one exposition, with the label `worker`
    app.py          the HTTP endpoints of the parent, and of a worker to its parent
"""
