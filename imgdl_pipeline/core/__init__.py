"""A plain library that lists, downloads, validates and catalogs image galleries.

It knows nothing of Dagster. Data flows one way, and each stage is one module:

    sources.list_links  ─→ links.parquet      what the source lists
    downloads           ─→ images/, ledger    DownloadPool × fetch × Store
    catalog             ─→ catalog.parquet    validate_jpeg, duplicates, first and last seen

Below them stand `fetch` (one URL), `pool` (the threads), `retry` (when again), `store` (the files) and
`validation` (one JPEG); then `robots`, `transport` (requests, made safe) and `guard` (what we refuse);
at the bottom `settings`, `outcome`, `columns` and `deadline`. Imports point down this list only, and
import-linter proves it.
"""
