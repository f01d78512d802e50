"""The state that the stages of one run share. Everything here is used on the event loop only.

In the order to read: run_state.py (the window, the counters, halts and crashes), timers.py (what is
called later), reasons.py and failure_log.py (count and log why messages fail), halting.py (the text
of a halt, with the way to continue), story.py (the log records of a run), log_context.py (the
fields of a handler's own log records), hooks.py (for test helpers).
"""
