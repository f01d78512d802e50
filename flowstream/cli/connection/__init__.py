"""How commands find and reach a broker.

connect.py          an environment with the configured address, TLS, credentials and limits
streams.py          streams and super streams, by the name that a command was given
embedded.py         the embedded broker of this folder, and one that a run starts
broker_choice.py    which of these a run uses
listener.py         what listens at an address where no broker answers
management.py       a client of RabbitMQ's management API
find_management.py  the management API of the broker that a command is connected to
identity.py         which broker is which: whether a run and a command use the same one
"""
