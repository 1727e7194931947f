"""The Flower App; see pyproject.toml beside this file."""
