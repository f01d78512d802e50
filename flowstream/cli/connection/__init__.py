"""How commands find and reach a broker.

connect.py        an environment with the configured address, TLS, credentials and limits
nearby.py         the embedded broker of this folder
broker_choice.py  which broker a run uses; embedded.py starts one for it
listener.py       what listens at an address where no broker answers
management.py     RabbitMQ's management API
"""
