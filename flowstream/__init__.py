"""Broadway-style data pipelines for Python on RabbitMQ Streams."""

__version__ = "0.1.0"
