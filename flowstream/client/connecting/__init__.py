"""Connections to brokers: addresses, the handshake, requests, pools, and recovery after a loss."""
