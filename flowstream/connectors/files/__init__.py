"""Into files: each batch as files that appear whole or not at all, each message in exactly one.

A batch settles when its files are durable and an entry of the manifest lists them. The entry also
says which offsets are done. So the stored offset of the pipeline may be behind what is written:
what comes again is left out, however the batches are cut.

    file_sink.py     FileSink: from a batch to the files of its streams and partitions
    formats.py       rows as the bytes of a file, Parquet or lines of JSON
    partitions.py    which folder a message belongs to
    commit_log.py    the guarantee: what is written in which order, who wins, what is garbage
    manifest.py      an entry, and where it lies
    stores.py        a local directory or a file system of fsspec; fsync, create only where absent
    names.py         names that are safe for every stream and partition
    reading.py       complete_files: what readers may read

The guarantee needs nothing but `create`: of several processes that write one name, one succeeds.
"""

from flowstream.connectors.files.file_sink import FileSink
from flowstream.connectors.files.reading import complete_files

__all__ = ["FileSink", "complete_files"]
