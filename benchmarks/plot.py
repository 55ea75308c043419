"""Draws what `run.py` has measured: how many images a second each contestant did."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

SHOWN = ("waiting", "download", "validation", "http_4_128", "https_4_128")
OURS, OTHERS = "#2a7f62", "#b8bcc4"


def main(results: str, picture: str) -> None:
    known = json.loads(Path(results).read_text())
    if not known.keys() >= set(SHOWN):
        return  # of what was measured alone there is a table, not a picture
    shown = [known[name] for name in SHOWN]
    figure, panels = plt.subplots(len(shown), 1, figsize=(8, 1.9 * len(shown)), squeeze=False)
    for panel, contest in zip(panels[:, 0], shown, strict=True):
        speeds = {name: contest["images"] / each for name, each in contest["seconds"].items()}
        colours = [OURS if name.startswith("imgdl_pipeline") else OTHERS for name in speeds]
        bars = panel.barh(list(speeds), list(speeds.values()), color=colours)
        panel.bar_label(bars, fmt="%.0f", padding=3)
        panel.invert_yaxis()
        panel.set_title(contest["title"], loc="left", fontsize=10)
        panel.set_xlabel("images a second")
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=110, bbox_inches="tight")  # titles may be wider than their panels


if __name__ == "__main__":
    main(*sys.argv[1:])
