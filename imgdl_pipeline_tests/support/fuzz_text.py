"""Fuzzes every parser of strangers' text, guided by the coverage of our code.

`pip install atheris`, then `python -m imgdl_pipeline_tests.support.fuzz_text [SECONDS [CORPUS]]`. The first
byte of an input chooses the parser. It ends at the first input that raises what it should not, or takes two
seconds; that input is written to the current folder.
"""

import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["imgdl_pipeline"]):
    from imgdl_pipeline_tests.support.parsers import PARSERS, check

NAMES = sorted(PARSERS)


def check_any(data: bytes) -> None:
    if data:
        check(NAMES[data[0] % len(NAMES)], data[1:])


def main(seconds: str = "600", corpus: str | None = None) -> None:
    limits = [f"-max_total_time={seconds}", "-max_len=4000", "-rss_limit_mb=4000"]
    atheris.Setup([sys.argv[0], corpus or tempfile.mkdtemp(), *limits], check_any)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
