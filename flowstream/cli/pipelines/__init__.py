"""Pipelines as users declare them: loaded, described, and the streams that connect them.

load.py             MODULE[:NAME] -> the pipelines it names
stream_topology.py  the streams that pipelines read and write, and circles among them
describe.py         parts of a pipeline in words
"""
