"""Files published to streams, for `flowstream publish` and `flowstream run --feed`.

record_formats.py  message bodies from lines of NDJSON, CSV and text
records.py         a file as slices of message bodies
feed.py            a file published at a rate, confirmed and reported
"""
