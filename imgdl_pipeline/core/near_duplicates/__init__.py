"""Group images of all galleries that look alike."""
