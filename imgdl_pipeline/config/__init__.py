"""Define the settings of a galleries file, and read it."""
