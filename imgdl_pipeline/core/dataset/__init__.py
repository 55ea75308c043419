"""Make datasets of catalogs, for training jobs and other readers."""
