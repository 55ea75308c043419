"""Persist data: the store, its layout, and the files written to it."""
