"""A simulation of many workers on one super stream, in virtual time: `python -m tests.simulation`.

Each worker is a pipeline with its real stages, watermarks and hand-overs. Only the network and the
broker's streams are simulated. Who reads which partition is decided by the coordinator of the
embedded broker, which decides as RabbitMQ does.

network.py     how long requests and failures take
group.py       the broker: the groups of single active consumers, and the nodes
member.py      what a worker sees of it: an environment, and the consumer of a super stream
workers.py     pipelines that start, stop and are killed, and what they handled
scenarios.py   what happens in a run, and what is measured
drawing.py     curves as SVG
__main__.py    prints the tables of docs/scale.md and draws its curves
"""
