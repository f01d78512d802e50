"""The curves of docs/tuning.md: what the options of a pipeline bring, and what they cost.

    python -m tests.benchmarks.tuning                  measure all on RabbitMQ 4.0, write the page
    python -m tests.benchmarks.tuning --only credit    some sweeps; the others stay as recorded
    python -m tests.benchmarks.tuning --draw           only write the tables and draw the curves

A sweep varies one option. Each point is a fresh process on a broker, in a random order, so that
other work on the machine hits all points alike. What is recorded is the best of the rounds: other
programs only make a run slower.

In the order of reading: sweeps.py (what is measured, as data), side.py (the pipelines, in their
own processes), distance.py (a network that is far away), measure.py (rounds), page.py (tables and
curves), __main__.py (the command).
"""
