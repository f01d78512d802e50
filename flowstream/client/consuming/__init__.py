"""Consuming: chunks arrive for credit and become deliveries; offsets are stored.

This room promises that a consumer begins exactly at the asked offset and continues behind the last
delivery after a loss; that no message is skipped silently, by retention or by a stream that
was created again; and that chunks in memory are bounded by the credit.

Read the files in this order:

    consumer.py        Consumer: iterating, tracking, hand-over
    options.py         ConsumerOptions, offsets, and when credit is returned
    subscription.py    the consumer on a connection: subscribed, given chunks, again
    delivery.py        from a chunk to a delivery; gaps, and the identity of a stream
    retention.py       explains gaps, and warns before retention overtakes the consumer
    tracking.py        stored offsets: OffsetStore, and Tracker, which decides when to store
    single_active.py   promotions and demotions of single active consumers
    super_consumer.py  SuperStreamConsumer: a consumer for each partition
    orphans.py         partitions that the broker has left without a reader
    probe.py, lag.py   reading a few chunks: the ends of a stream, and its lag
"""
