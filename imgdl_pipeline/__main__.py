"""`python -m imgdl_pipeline` is the program `imgdl`."""

from imgdl_pipeline.cli import main

if __name__ == "__main__":
    main(prog_name="imgdl")
