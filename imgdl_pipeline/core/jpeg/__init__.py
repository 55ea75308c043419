"""From the bytes of a JPEG to facts about it."""
