"""A pipeline while it runs.

run.py opens a run and ends it. assembly.py builds its stages, drain.py brings what is in flight to
its end. control.py is the face: `RunningPipeline`. report.py reads a run into the values of
statistics.py, with the lag of lag.py. gc_tuning.py slows the garbage collector down.
"""
