"""Pipelines as users declare them: loaded, described, and the streams that connect them.

load.py             the pipelines of MODULE[:NAME]
stream_topology.py  the streams that pipelines read and write, and circles among them
sink_records.py     the sinks of pipelines, and what they keep of what they have written
describe.py         parts of a pipeline in words
"""
