"""Define what all packages share: outcomes, settings, links and the columns of every file."""
