"""Download the links in `links.parquet`, and record the results in the ledger."""
