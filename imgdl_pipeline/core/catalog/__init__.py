"""From images and the ledger to `catalog.parquet`, and what looks at it."""
