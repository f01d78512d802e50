"""Real brokers: `rabbitmq.py` runs them, `running` tells the tests where they listen."""
