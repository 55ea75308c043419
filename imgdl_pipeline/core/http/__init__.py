"""Safe HTTP: every request to an untrusted server goes through this package."""
