"""A plain library that lists, downloads, validates and catalogs image galleries.

It knows nothing of Dagster. Data flows one way, and each stage is one module:

    listing             ─→ links.parquet      what the gallery's source lists
    downloads           ─→ images/, ledger    DownloadPool × fetch × Store
    catalog             ─→ catalog.parquet    validate_jpeg, duplicates, first and last seen

Beside the catalog, `contact_sheet` and `inspection` look at what is there. Below the downloads stand `plan`
(what is asked for) and `early_facts` (images that are checked while others are on their way); then `listing`,
and `ledger` (what happened) with its `lease` (one run at a time) and `checkpoints` (what a killed run had
done); `galleries` (a file's settings); then `sources` (where links come from), `fetch` (one URL), `pool` (the
threads), `retry` (when again), `breaker` (when not again) and `validation` (one JPEG); then `links`,
`schedule` (whose turn it is), `store` (the files) and `robots`; then `transport` (requests, made safe) and
`guard` (what we refuse); at the bottom `settings`, `outcome`, `columns`, `deadline` and `jpeg_header`.
Imports point down this list only, and import-linter proves it.
"""
