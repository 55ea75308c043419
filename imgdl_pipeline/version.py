"""The one place that states the version and the home page."""

__version__ = "0.1.0"

HOME_PAGE = "https://github.com/imgdl-pipeline/imgdl_pipeline"
"""Where the owner of a server that we visit can read who we are; stands in the User-Agent."""
