"""Safe HTTP: every request to a stranger goes through here."""
