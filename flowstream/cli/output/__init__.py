"""Everything that commands write: results, notes, errors, progress and log records.

safe_text.py    text of others, safe for a terminal, and JSON of any value
tables.py       rows as a table or as records
console.py      standard output and standard error
status_line.py  the last line of a terminal; progress.py says in it what a command does now
messages.py     messages of a stream, decoded for people and programs
logs.py         log records as text, JSON or logfmt
"""
