"""Broker configuration rendered from the topic types."""
