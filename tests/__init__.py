"""The tests mirror flowstream/ room by room; conftest.py lists the shared fixtures."""
