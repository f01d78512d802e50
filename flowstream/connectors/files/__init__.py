"""Sinks that write files: each file is complete or absent, each message is in exactly one.

A batch settles when its files are durable and an entry of the manifest lists them. The entry also
says which offsets are done. So the pipeline's stored offset may be behind what is written: messages
that arrive again are skipped, however they are batched.

    file_sink.py     FileSink: writes a batch as a file for each stream and partition
    formats.py       encodes rows as Parquet or lines of JSON
    partitions.py    which folder a message belongs to
    commit_log.py    the guarantee: the order of writes, who wins, what is removed
    manifest.py      an entry, and the paths of the manifest
    stores.py        a local directory or an fsspec file system: durable, atomic writes
    names.py         names that are safe for every stream and partition
    reading.py       complete_files: lists the files that readers may read

The guarantee rests on `create` alone: if several processes create the same name, one succeeds.
"""

from flowstream.connectors.files.file_sink import FileSink
from flowstream.connectors.files.reading import complete_files

__all__ = ["FileSink", "complete_files"]
