"""List a source's links and write `links.parquet`."""
