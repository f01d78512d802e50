"""Dead letters: read, replayed exactly once, and served to the live page.

dead_letter_records.py  a dead letter with its original message and its reason
replay.py               dead letters published again
live_page.py            the same for the live page, with bounds
"""
