"""Federations whose examples stay where they are: sites train, a server sums, adds noise once and applies.

`task.py`, `site.py` and `rounds.py` are what is done, in plain functions; `flower.py`, which alone imports Flower (the
extra `federated`), carries it from one process to another. docs/federated.md says who has to trust whom.
"""
