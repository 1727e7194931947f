"""Transforms of images that no private example has shaped: fixed ones, and ones that learn from public images."""
