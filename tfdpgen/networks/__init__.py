"""Keras builders and nothing else: they know nothing of privacy."""
