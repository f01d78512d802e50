"""Rates, CPU and latency beside the bare Python client (rstream), in one run.

    make bench                                            everything, on RabbitMQ 4.0
    make bench ARGS='--only publish,pydantic'             some, with what they are compared with
    make bench ARGS='--broker embedded --messages 20000'  a quick look, with no RabbitMQ installed
    make bench ARGS='--json 4.0.json --markdown README.md --markdown docs/comparisons.md'

What keeps the figures honest:

- Bodies are real orders, padded to lengths that vary as those of real messages do (bodies.py).
- Each measurement is a fresh process, on uvloop for every client. The processes take turns, and a
  ratio is the median of the ratios of the rounds, since only what ran together can be compared.
- CPU seconds of the client's process are shown beside the rate: a rate alone hides what a second
  core did.
- Each client is measured for the guarantee that it gives: the titles say which. flowstream always
  confirms what it publishes, and a pipeline commits what it consumes and reads the last commit
  back. The time to consume includes connecting.
- Figures that were not measured in the same run are marked as recorded.

In the order of reading: scenarios.py (what is measured, as data), schedule.py (which process runs
when), worker.py and measuring.py (one process), flowstream_side.py, rstream_side.py and
memory_side.py (the work itself; shapes.py declares the pipelines), figures.py (medians and
ratios), report.py (tables), streams.py, harness.py and __main__.py (the command).
"""
