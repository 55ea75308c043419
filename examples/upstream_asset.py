"""A link list that another asset of the same graph makes: here from a table of products.

`dagster dev -f examples/upstream_asset.py`; gallery_links stands downstream of shop/products.
"""

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries

LIST = "products.parquet"


@dg.asset(key=["shop", "products"])
def products() -> None:
    """The shop's products; in real life this is a query."""
    rows = [
        {"sku": "A1", "image_url": "http://127.0.0.1:18975/demo/0001-hills.jpg"},
        {"sku": "B2", "image_url": "http://127.0.0.1:18975/demo/0002-hills.jpg"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), LIST)


galleries = Galleries.model_validate(
    {
        "galleries": [
            {
                "name": "products",
                "source": {
                    "type": "url_list",
                    "path": LIST,
                    "url_column": "image_url",
                    "asset": "shop/products",
                },
            }
        ]
    }
)

defs = dg.Definitions.merge(
    dg.Definitions(assets=[products], executor=dg.in_process_executor),
    dg.build_defs_for_component(ImageGalleries(galleries)),
)
