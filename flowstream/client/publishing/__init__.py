"""Publishing to streams and super streams: bounded, confirmed, in order, across reconnects."""
