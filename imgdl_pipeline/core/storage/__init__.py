"""Everything that is persisted: the store, its layout, and what is written to it."""
