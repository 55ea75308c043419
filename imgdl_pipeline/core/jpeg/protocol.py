"""What the run's process and its decoding processes must agree on.

A request is a line of JSON: `id`, `job`, `size`, `limits`, and what else the job takes. The image's bytes are
in memory shared with the worker, or in a file whose descriptor comes with the line. An answer is a line of
JSON with the same `id`, followed by as many bytes as its `payload` says. Before it, a line with `reserve` may
ask for a byte that says that an image of so many bytes may be decoded now.
"""

FORK, REAP = b"F", b"R"
"""Requests to the fork server: a new worker; the end of a worker, whose number follows, and how it ended."""

GO = b"G"
"""From the fork server: it is ready. To a worker: the image may be decoded now."""

MAX_REQUEST_BYTES = 4096

CPU_S = 10.0
"""Seconds of the processor that one image may take."""

WALL_S = 60.0
"""Seconds by the clock that it may take: a decoder that waits uses no processor."""

BASE_BYTES = 256_000_000
"""Address space that a worker may use for an image, beside its file and what its header says it takes."""

MEMORY_STATUS = 97
"""How a worker exits that has used too much memory where the system does not limit address space."""
