"""From `links.parquet` to images and the ledger."""
