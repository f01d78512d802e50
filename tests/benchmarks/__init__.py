"""Rates beside the bare Python client (rstream) and beside Broadway, in one run.

    python -m tests.benchmarks                        every comparison, RabbitMQ 4.0
    python -m tests.benchmarks publish pipeline       only those whose name begins so
    python -m tests.benchmarks --broker 3.10 --rounds 5 --messages 200000
    python -m tests.benchmarks --url rabbitmq-stream://guest:guest@localhost:5552/%2f

Each measurement is a fresh process on uvloop where that is installed, for every peer alike. The
peers take turns (A B A B ...), and the ratio is the median of the rounds' ratios, because machines
are noisy: only ratios out of one run count. `--json FILE` keeps the figures.
"""
