"""The galleries file: its settings, and how it is read."""
