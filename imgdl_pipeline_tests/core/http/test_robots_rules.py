"""Which rules are read from a robots.txt. The verdicts marked G are those of google/robotstxt, too."""

import time

import pytest

from imgdl_pipeline.core.http.robots_rules import MAX_LINE, MAX_WILDCARD_BYTES, read_rules

US = "imgdl_pipeline"


def allowed(text, path="/a.jpg", agent=US):
    body = text if isinstance(text, bytes) else text.encode()
    return read_rules(body, agent).allow(f"http://h.org{path}")


@pytest.mark.parametrize(
    "between",
    [
        "Sitemap: http://h.org/s.xml",
        "Crawl-delay: 3",
        "Host: h.org",
        "Noindex: /x",
        "",
        "# note",
        "some prose here",
    ],
)
def test_only_a_rule_ends_a_group(between):  # G
    assert not allowed(f"User-agent: {US}\n{between}\nUser-agent: b\nDisallow: /")


@pytest.mark.parametrize("rule", ["Disallow:", "Allow: /x", "Disallow: /x"])
def test_a_rule_even_an_empty_one_ends_a_group(rule):  # G
    assert allowed(f"User-agent: {US}\n{rule}\nUser-agent: b\nDisallow: /")


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        (
            f"User-agent: {US}\nDisallow: /a\n\nUser-agent: b\nAllow: /\n\nUser-agent: {US}\nDisallow: /c",
            "/c",
            False,
        ),
        ("User-agent: *\nDisallow: /a\nUser-agent: b\nDisallow: /\nUser-agent: *\nDisallow: /c", "/c", False),
        (f"User-agent: *\nUser-agent: {US}\nDisallow: /a\nUser-agent: *\nDisallow: /", "/b", True),
        (f"User-agent: *\nDisallow: /\n\nUser-agent: {US}\n", "/a", True),
        ("Disallow: /\nUser-agent: b\nDisallow: /", "/a", True),
        ("Disallow: /a\nUser-agent: *\nDisallow: /b", "/a", True),
    ],
)
def test_our_groups_are_joined_and_replace_those_for_all(text, path, expected):  # G
    assert allowed(text, path) is expected


@pytest.mark.parametrize(
    "agent_key",
    ["User-agent", "USER-AGENT", "User Agent", "useragent", "User-agents", " User-agent ", "\tUser-agent\t"],
)
@pytest.mark.parametrize(
    "rule_key",
    ["Disallow", "DISALLOW", "Dissallow", "Dissalow", "Disalow", "Diasllow", "Disallaw", "Disallowed"],
)
def test_frequent_misspellings_of_keys_are_read(agent_key, rule_key):  # G
    assert not allowed(f"{agent_key}: *\n{rule_key}: /")


@pytest.mark.parametrize(
    "text", ["User_agent: *\nDisallow: /", "User-agent: *\nDesallow: /", "User-agent: *\n: /"]
)
def test_other_keys_are_not(text):  # G
    assert allowed(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("User-agent *\nDisallow /", False),
        ("User-agent\t*\nDisallow\t \t/", False),
        ("User agent *\nDisallow: /", True),
        ("User-agent: *\nDisallow / b", True),
        ("User-agent: *\nDisallow: /\nUseragent\nAllow: /", True),
        ("User-agent: *\nDisallow:: /", True),
    ],
)
def test_a_colon_may_be_missing_between_two_words(text, expected):  # G
    assert allowed(text) is expected


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\n\r", "\r\r\n"])
def test_lines_end_with_cr_lf_or_both(end):  # G
    assert not allowed(end.join(["\ufeffUser-agent: *", "Disallow: /a", ""]))


@pytest.mark.parametrize("char", ["\v", "\f", "\x1c", "\x85", "\u2028"])
def test_and_with_nothing_else(char):  # G
    assert allowed(f"User-agent: *\nDisallow: /b{char}Disallow: /a")


def test_no_more_of_a_line_is_read_than_googles_parser_reads():  # G
    assert not allowed("User-agent: *\nDisallow: /" + "a" * 20_000, "/" + "a" * (MAX_LINE - 11))
    assert allowed("User-agent: *\nDisallow: /" + "a" * 20_000, "/" + "a" * (MAX_LINE - 12))
    assert not allowed("User-agent: *\n#" + "x" * 20_000 + "\nDisallow: /")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/a", "/ab", True),
        ("/A", "/a", False),
        ("a", "/a", False),
        ("/a$", "/a", True),
        ("/a$", "/ab", False),
        ("/a$", "/a$b", False),
        ("/a$b", "/a$b", True),
        ("/a$$", "/a$", True),
        ("$", "/", False),
        ("*", "/", True),
        ("*$", "/a", True),
        ("/*.jpg$", "/a.jpg", True),
        ("/*.jpg$", "/a.jpg?x", False),
        ("/*a$", "/aba", True),
        ("/a*a$", "/a", False),
        ("/a*a$", "/aa", True),
        ("/**x", "/ax", True),
        ("/*a*b*c", "/abc", True),
        ("/*a*b*c", "/acb", False),
        ("/*ab*ab$", "/ab", False),
        ("/*ab*ab$", "/abab", True),
        ("/a?b", "/a?b=c", True),
        ("/*?", "/a?", True),
        ("/a$", "/a?", False),
        ("/$", "", True),
        ("/?x", "?x", True),
        ("//a", "//a", True),
        ("/a#b", "/ac", True),
        ("/a$", "/a#b", True),
        ("http://h.org/a", "/a", False),
        ("/a;b", "/a;b", True),
    ],
)
def test_patterns(pattern, path, matches):  # G
    assert allowed(f"User-agent: *\nDisallow: {pattern}", path) is not matches


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        ("Disallow: /a\nAllow: /ab", "/abc", True),
        ("Allow: /a\nDisallow: /ab", "/abc", False),
        ("Allow: /a\nDisallow: /a", "/a", True),
        ("Disallow: /a\nAllow: /a", "/a", True),
        ("Disallow: /\nAllow:", "/a", False),
        ("Disallow: /*?id=\nAllow: /*.jpg", "/x?id=a.jpg", True),
        ("Disallow: /a.jpg\nAllow: /*.jpg$", "/a.jpg", True),
        ("Disallow: /é\nAllow: /*.jpg", "/%C3%A9.jpg", False),
        ("Disallow: /\nAllow: /d/index.html", "/d/", True),
        ("Disallow: /\nAllow: /d/index.htm?x", "/d/", True),
        ("Disallow: /\nAllow: /d/index.html", "/d/b", False),
        ("Disallow: /d/index.html", "/d/", True),
    ],
)
def test_the_longest_rule_counts_and_of_equal_ones_the_one_that_allows(rules, path, expected):  # G
    assert allowed(f"User-agent: *\n{rules}", path) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/%c3%a9", "/%C3%A9", True),
        ("/%C3%A9", "/%c3%a9", True),
        ("/é", "/%C3%A9", True),
        ("/%62%61%7A", "/baz", True),
        ("/baz", "/%62%61%7A", True),
        ("/a%2Fb", "/a/b", False),
        ("/a/b", "/a%2fb", False),
        ("/Special:", "/Special%3A", True),
        ("/Special%3a", "/Special:", True),
        ("/x?q%3D", "/x?q=1", False),
        ("/x%3Fq", "/x?q", False),
        ("/a+b", "/a%2Bb", False),
        ("/a b", "/a%20b", True),
        ("/{x}", "/%7Bx%7D", True),
        ("/100%", "/100%25", True),
        ("/a%2Ab", "/a*b", True),
        ("/a%2Ab", "/axb", False),
        ("/a%24", "/a$b", True),
        ("/a*c", "/a*bc", True),
        ("/%", "/%25", True),
    ],
)
def test_percent_encoding_is_compared_as_the_standard_says(pattern, path, matches):
    assert allowed(f"User-agent: *\nDisallow: {pattern}", path) is not matches


def test_octets_that_are_not_utf_8_are_compared_as_they_are():  # G
    assert not allowed(b"User-agent: *\nDisallow: /\xe9", "/%E9")
    assert allowed(b"User-agent: *\nDisallow: /b\0c", "/b") is False


@pytest.mark.parametrize(
    ("value", "names_us"),
    [
        (US, True),
        (US.upper(), True),
        (f"{US}/1.0", True),
        (f"{US} b", True),
        (f"{US}, b", True),
        (f"{US}*", True),
        (f"{US} # us", True),
        (f"{US}2", False),
        ("imgdl", False),
        ("pipeline", False),
        (f"b {US}", False),
        ("", False),
        ("*", True),
        ("* b", True),
        ("*\tb", True),
        ("*b", False),
        ("*/", False),
        ("*,", False),
    ],
)
def test_product_tokens(value, names_us):  # G, but for `imgdl_pipeline2`, whose digit it does not read
    assert allowed(f"User-agent: {value}\nDisallow: /") is not names_us


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("User-agent: *\nCrawl-delay: 10", 10),
        ("User-agent: *\nCrawl-delay: .5", 0.5),
        ("User-agent: *\nCrawl-delay: 1.5 # s", 1.5),
        ("User-agent: *\ncrawl delay: 2", 2),
        ("User-agent: *\nCrawl-delay 2", 2),
        ("User-agent: *\nCrawl-delay: 0", 0),
        ("User-agent: *\nCrawl-delay: 86400", 86400),
        *(
            (f"User-agent: *\nCrawl-delay: {junk}", 0)
            for junk in ("", "-1", "inf", "nan", "1e9", "1_0", "0x1", "5s", "1,5", "/a", "٣", "9" * 400)
        ),
        ("Crawl-delay: 10\nUser-agent: *\nDisallow: /", 0),
        ("User-agent: b\nCrawl-delay: 9\nUser-agent: *\nDisallow:", 0),
        (f"User-agent: *\nCrawl-delay: 9\n\nUser-agent: {US}\nDisallow:", 0),
        ("User-agent: *\nCrawl-delay: 3\nCrawl-delay: 9\nCrawl-delay: 5", 9),
        ("User-agent: *\nCrawl-delay: 9\nUser-agent: b\nDisallow: /", 9),
    ],
)
def test_the_pause_that_is_asked_for(text, delay):
    assert read_rules(text.encode(), US).crawl_delay_s == delay


def test_too_many_wildcards_close_the_host_and_cost_no_time():
    lines = [f"Allow: *{'a' * 8}{number}b" for number in range(30_000)]
    assert not allowed("User-agent: *\n" + "\n".join(lines), "/" + "a" * 8_000)
    few = lines[: MAX_WILDCARD_BYTES // 20]
    started = time.process_time()
    assert allowed("User-agent: *\n" + "\n".join(few), "/" + "a" * 8_000)
    assert time.process_time() - started < 2  # seconds; a pattern that backtracks takes hours


@pytest.mark.parametrize(
    "body",
    [
        "User-agent: *\nDisallow: /" + "*a" * 260_000,
        "User-agent: *\n" + "Allow:/\n" * 65_000,
        "a\n" * 250_000,
        "\r" * 500_000,
        "#\n" * 250_000,
        ":\n" * 250_000,
        " " * 500_000,
        "User-agent: *\nDisallow: " + "$" * 500_000,
        "User-agent: a\n" * 18_000 + "User-agent: *\n" + "Disallow: /x\n" * 20_000,
    ],
)
def test_a_hostile_file_takes_little_time_and_memory(body):
    started = time.process_time()
    rules = read_rules(body.encode(), US)
    rules.allow("http://h.org/" + "a" * 20_000)
    assert time.process_time() - started < 5  # seconds; 0.3 on a developer's machine
    assert rules.size() < 100_000
