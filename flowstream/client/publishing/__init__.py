"""Publishing: a message is buffered, sent, and confirmed or reported as failed.

This room promises that messages are sent in order with increasing publishing ids; that everything
unconfirmed is sent again after a loss, before anything new; and that the buffer is bounded, so that
a caller waits instead of filling the memory.

Read the files in this order:

    publisher.py        Publisher: send, publish and flush
    options.py          PublisherOptions
    send_buffer.py      bodies become entries with ids, and entries become frames
    unconfirmed.py      the entries that were sent or wait, until they are settled
    framing.py          an entry as a frame, and its size
    session.py          the publisher on a connection: declared, written, confirmed, again
    super_publisher.py  SuperStreamPublisher: a publisher for each partition, and hash routing
"""
