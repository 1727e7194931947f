"""What is done to private examples, one file for each kind: `base.py` says what a mechanism is."""
