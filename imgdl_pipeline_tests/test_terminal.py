import os
import pty
import re
import threading
from contextlib import contextmanager

import pytest

from imgdl_pipeline.core.download.run import Progress as DownloadProgress
from imgdl_pipeline.core.model.counted import Counted
from imgdl_pipeline.terminal import RunDisplay, print_table

HALF = DownloadProgress(
    done=10, total=20, failed=3, seconds=4.0, by_status={"ok": 7, "invalid": 1, "failed": 2, "refused": 0}
)
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """Without what a developer's shell or a CI service tells rich of its terminal."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


class Terminal:
    """A pseudo-terminal whose text is read as it comes."""

    def __init__(self):
        self._master, slave = pty.openpty()
        self.file = os.fdopen(slave, "w")
        self._text = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            while data := os.read(self._master, 65536):
                self._text += data
        except OSError:  # nobody has the terminal any more
            pass

    def close(self):
        """Return all that was written, with its escape sequences."""
        self.file.close()
        self._reader.join(10)
        os.close(self._master)
        return self._text.decode()


@contextmanager
def displayed(monkeypatch, said):
    """A display on a terminal; what it wrote is in `said` at the end."""
    terminal = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", terminal.file)
        with RunDisplay() as display:
            yield display
    said.append(terminal.close())


def test_elsewhere_than_on_a_terminal_a_stage_is_one_line(capfd):
    with RunDisplay() as display:
        for stage in ("links", "images", "catalog"):
            display("g", stage, None)
        display.done()
    assert capfd.readouterr() == ("", "g: listing\ng: downloading\ng: checking\n")


def test_elsewhere_than_on_a_terminal_progress_is_a_line_every_few_seconds(capfd, monkeypatch):
    with RunDisplay() as display:
        display("g", "images", None)
        display("g", "images", HALF)
        monkeypatch.setattr("imgdl_pipeline.progress.EVERY_S", 0.0)
        display("g", "images", None)
        display("g", "images", HALF)
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["g: downloading", "g: downloading", f"g: {HALF}"]


def test_a_line_is_neither_wrapped_nor_taken_for_markup(capfd, monkeypatch):
    monkeypatch.setattr("imgdl_pipeline.progress.EVERY_S", 0.0)
    text = "[bold]10[/bold] of 20 links " * 20
    with RunDisplay() as display:
        display("g", "images", None)
        display("g", "images", text)
    assert capfd.readouterr().err == f"g: downloading\ng: {text}\n"


def test_a_bar_has_the_gallery_the_stage_the_counts_and_the_rate(monkeypatch):
    said = []
    with displayed(monkeypatch, said) as display:
        display("g", "images", None)
        display("g", "images", HALF)
    text = _ESCAPE.sub("", said[0])
    assert "g: downloading" in text
    assert "━" in text
    assert "10/20" in text
    assert "2.5/s" in text
    assert "7 ok, 1 invalid, 2 failed" in text
    assert "refused" not in text, "what did not happen takes no room"


def test_a_bar_counts_the_files_that_are_checked(monkeypatch):
    said = []
    with displayed(monkeypatch, said) as display:
        display("g", "catalog", None)
        display("g", "catalog", Counted(3, 8, "new images checked"))
    text = _ESCAPE.sub("", said[0])
    assert "g: checking" in text
    assert "3/8" in text


def test_a_bar_counts_the_rows_that_are_written(monkeypatch):
    said = []
    with displayed(monkeypatch, said) as display:
        display("g", "view", None)
        display("g", "view", Counted(250, 801, "rows written"))
    text = _ESCAPE.sub("", said[0])
    assert "g: making thumbnails" in text
    assert "250/801" in text


def test_a_bar_is_gone_at_the_end_and_the_cursor_is_shown(monkeypatch):
    said = []
    with displayed(monkeypatch, said) as display:
        display("g", "links", None)
    assert said[0].rfind("\x1b[2K") > said[0].rfind("━"), "the bar's line was erased after it was drawn"
    assert said[0].rfind("\x1b[?25h") > said[0].rfind("\x1b[?25l")


def test_a_bar_is_gone_when_its_run_has_ended(monkeypatch):
    said = []
    with displayed(monkeypatch, said) as display:
        display("first", "links", None)
        display.done()
        display("second", "links", None)
    text = said[0]
    assert "first" not in text[text.index("second") :]


def test_a_terminal_that_cannot_move_its_cursor_has_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    said = []
    with displayed(monkeypatch, said) as display:
        display("g", "links", None)
        display("g", "images", None)
    assert said == ["g: listing\r\ng: downloading\r\n"]


def test_progress_without_a_stage_or_after_its_end_is_ignored(monkeypatch):
    said = []
    with displayed(monkeypatch, said) as display:
        display("g", "images", HALF)
        display("g", "images", None)
        display.done()
        display("g", "images", HALF)
        display.done()
    assert "10/20" not in said[0]


def test_a_display_writes_to_the_standard_error_of_its_start_whatever_becomes_of_it(
    capfd, monkeypatch, tmp_path
):
    """Dagster redirects the process's standard error to a file during a step."""
    kept = os.dup(2)
    try:
        with RunDisplay() as display, (tmp_path / "step.err").open("w") as other:
            os.dup2(other.fileno(), 2)
            display("g", "links", None)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert capfd.readouterr().err == "g: listing\n"
    assert (tmp_path / "step.err").read_text() == ""


def test_a_table_has_a_line_per_row_under_its_header(capsys):
    print_table(["gallery", "links"], [["a", 1], ["longer-name", 1234567]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["gallery          links", "a                    1", "longer-name  1,234,567"]


def test_a_table_without_rows_is_its_header(capsys):
    print_table(["gallery", "links"], [])
    assert capsys.readouterr().out.split() == ["gallery", "links"]


def test_a_table_in_a_file_is_never_wrapped_and_has_no_escapes(capsys):
    print_table(["gallery", "lists"], [["a", "path: " + "x" * 400]])
    out = capsys.readouterr().out
    assert "x" * 400 in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "text", ["[bold]b[/bold]", "[/]", "[link=http://a.example]x[/link]", "back\\", "[red]\\"]
)
def test_a_tables_text_is_not_taken_for_markup(capsys, text):
    print_table(["gallery"], [[text]])
    assert capsys.readouterr().out.splitlines()[1].rstrip() == text


@pytest.mark.parametrize("text", ["\x1b[2Jgone", "\x1b]0;title\x07", "\x9b31mred", "two\nlines", "back\r\b"])
def test_a_tables_text_does_not_act_on_the_terminal(monkeypatch, text):
    terminal = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", terminal.file)
        print_table(["gallery", "lists"], [["a", text]])
    printed = terminal.close().replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\r\n", "\n")
    assert all(each.isprintable() or each == "\n" for each in printed), printed
    assert len(printed.splitlines()) == 2


def test_secrets_in_a_tables_urls_are_hidden(capsys):
    print_table(["lists"], [["http://me:password@example.org/?token=abc"]])
    out = capsys.readouterr().out
    assert "password" not in out
    assert "abc" not in out
    assert "example.org" in out
