from imgdl_pipeline.progress import EVERY_S, every_few_seconds, reporting, watching


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_progress_is_logged_at_most_once_every_few_seconds():
    clock, said = Clock(), []
    say = every_few_seconds(said.append, clock)
    for seconds, word in ((0, "at once"), (EVERY_S - 0.1, "too soon"), (EVERY_S, "due"), (EVERY_S, "again")):
        clock.now = 100.0 + seconds
        say(word)
    clock.now += EVERY_S
    say("due once more")
    assert said == ["due", "due once more"]


def test_progress_is_logged_as_text():
    clock, said = Clock(), []
    say = every_few_seconds(said.append, clock)
    clock.now += EVERY_S
    say(42)
    assert said == ["42"]


def test_whoever_watches_is_called_where_a_stage_begins_and_with_all_of_its_progress():
    seen = []
    with watching(lambda *each: seen.append(each)):
        report = reporting("g", "images", log=lambda _: None)
        report(1)
        report(2)
    assert seen == [("g", "images", None), ("g", "images", 1), ("g", "images", 2)]


def test_what_is_watched_is_still_logged(monkeypatch):
    monkeypatch.setattr("imgdl_pipeline.progress.EVERY_S", 0.0)
    said = []
    with watching(lambda *_: None):
        reporting("g", "images", said.append)("half")
    assert said == ["half"]


def test_without_a_watcher_progress_is_only_logged(monkeypatch):
    monkeypatch.setattr("imgdl_pipeline.progress.EVERY_S", 0.0)
    said = []
    reporting("g", "images", said.append)("half")
    assert said == ["half"]


def test_nobody_watches_after_the_end_even_of_a_failure():
    seen = []
    try:
        with watching(lambda *each: seen.append(each)):
            raise OSError
    except OSError:
        pass
    reporting("g", "links", log=lambda _: None)
    assert seen == []


def test_the_inner_watcher_watches_until_its_block_ends():
    seen = []
    with watching(lambda *each: seen.append(("outer", *each))):
        with watching(lambda *each: seen.append(("inner", *each))):
            reporting("g", "links", log=lambda _: None)
        reporting("g", "images", log=lambda _: None)
    assert seen == [("inner", "g", "links", None), ("outer", "g", "images", None)]
