"""Files into streams: for `flowstream publish` and `flowstream run --feed`.

record_formats.py  lines of NDJSON, CSV and text -> message bodies
records.py         files -> message bodies, a slice at a time
rate.py            when the next messages are due
feed.py            a file published, confirmed and reported
"""
