"""Build `catalog.parquet` from images and the ledger, and audit it."""
