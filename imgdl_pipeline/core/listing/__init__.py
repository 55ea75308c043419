"""From a source to `links.parquet`."""
