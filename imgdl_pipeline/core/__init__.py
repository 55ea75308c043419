"""A plain library that lists, downloads, validates and catalogs image galleries.

It knows nothing of Dagster. Data flows one way, and each stage is one module:

    sources.list_links  ─→ links.parquet      what the source lists
    downloads           ─→ images/, ledger    DownloadPool × fetch × Store
    catalog             ─→ catalog.parquet    validate_jpeg, duplicates, first and last seen

Below them stand `fetch` (one URL), `pool` (the threads), `ledger` (what happened), `retry` (when again),
`breaker` (when not again) and `validation` (one JPEG); then `links`, `schedule` (whose turn it is), `store`
(the files) and `robots`; then `transport` (requests, made safe) and `guard` (what we refuse); at the bottom
`settings`, `outcome`, `columns`, `deadline` and `jpeg_header`. Imports point down this list only, and
import-linter proves it.
"""
