"""What all rooms share: outcomes, settings, links and the columns of every file."""
