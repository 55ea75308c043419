"""A plain library that lists, downloads, validates and catalogs image galleries.

It knows nothing of Dagster. Data flows one way, and each stage is a room:

    sources ─→ listing    links.parquet        what the gallery's source lists
                 │
                 ↓
             download     images/, ledger      DownloadPool × fetch × Store
                 │
                 ↓
              catalog     catalog.parquet      one row per link: facts, or the reason why there are none

They are built on four foundations: `http` (requests to strangers, made safe), `jpeg` (from bytes to facts),
`storage` (everything that is persisted) and `model` (what all rooms share). Imports point one way, which
import-linter proves: `catalog | download → listing → sources → http | jpeg | storage → model`.
"""
