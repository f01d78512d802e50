"""Everything that commands write: results, notes, errors, progress and log records.

safe_text.py    text of others, safe for a terminal, and JSON of any value
console.py      standard output and standard error, and the status line of a terminal
tables.py       rows as a table or as records
progress.py     what a command is doing, in the status line
messages.py     messages of a stream, decoded for people and programs
logs.py         log records as text, JSON or logfmt
"""
