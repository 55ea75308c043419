"""Decide which images share a file of a dataset."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

LOOSE = 2
"""How many times the files that are needed a dataset may have before it is packed anew."""


def assigned(urls: pa.Array, earlier: pa.Table, size: int) -> npt.NDArray[np.int32]:
    """Return the number of each image's shard.

    An image stays in its shard, so that an update writes only shards whose images changed. New images fill
    the last shard, then new ones. When images have left so many shards that half as many would do, all are
    packed anew. The result depends on nothing but the arguments.

    Args:
        urls: The images' links, in the catalog's order.
        earlier: `url` and `shard` (int32) of the dataset so far; no rows for a new one.
        size: Images in a shard, at most.
    """
    shards = _earlier_shards(urls, earlier)
    kept = np.unique(shards[shards >= 0])
    needed = -(-len(urls) // size)
    if len(kept) > LOOSE * max(1, needed):
        shards[:] = -1
        kept = kept[:0]
    is_new = shards < 0
    last = int(kept[-1]) if len(kept) else 0
    in_last = int((shards == last).sum())
    shards[is_new] = last + (in_last + np.arange(int(is_new.sum()))) // size
    return shards


def _earlier_shards(urls: pa.Array, earlier: pa.Table) -> npt.NDArray[np.int32]:
    """Return the number of the shard that each image was in; -1 for new images."""
    known, numbers = earlier["url"].combine_chunks(), earlier["shard"].combine_chunks()
    if not urls.equals(known):  # else finding each link would need more memory than all of them
        numbers = numbers.take(pc.index_in(urls, value_set=known))
    before: npt.NDArray[np.int32] = pc.fill_null(numbers, -1).to_numpy(zero_copy_only=False)
    return before.astype(np.int32)
