"""What the stages of one run share.

run_state.py is the window, the counters, and how a run halts; timers.py what is to happen later.
reasons.py and failure_log.py count and log why messages fail, halting.py says how to go on after a
halt, story.py what the log says of a run, log_context.py where a handler is that logs.
"""
