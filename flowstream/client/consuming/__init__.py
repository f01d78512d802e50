"""Consuming streams and super streams: exact offsets, back-pressure by credit, stored offsets."""
