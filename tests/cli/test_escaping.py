"""Texts from sheets and records appear literally: no markup, code or escape sequences."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from report.output.write import write_report
from report.tables.latex import escape_latex, table_latex
from report.tables.markdown import escape_markdown, table_markdown
from report.tables.table import ReportTable, TableColumn, TableEntry
from skd.common.terminal import PlainConsole, description_column, printable
from skd.expansion.expand import expand_study
from skd.store.store import Store
from skd.study.expansion_files import load_expansion, write_expansion
from skd.study.sheet import StudyError, read_sheet
from skd.study.sheet_files import find_sheet
from skd.training.progress import RunProgressBar
from tests.builders import tiny
from tests.builders.commands import Skd
from tests.builders.records import make_failure

MARKUP = "SKD [ours] [/foo] [bold]x[/bold] :smile:"
ESCAPES = "red \x1b[31m title \x1b]0;owned\x07 \x9b2J \r gone"
HTML = """<script>alert('x')</script> "onload=" ' & </title> </svg> <!-- {{ 7*7 }}"""
LATEX = r"\input{/etc/passwd} & % $x$ # _ { } ~ ^ \\ \end{document} ``q''"
MARKDOWN = "a | b `c` [d](http://e) ![f](g) *h* _i_ <b> # j ~~k~~ $l$ \\ \n# m"
ALL = " ".join([MARKUP, HTML, LATEX, MARKDOWN.replace("\n", " ")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a study whose texts contain all special characters and a failed run."""
    folder = tmp_path_factory.mktemp("marked")
    sheet = {**tiny.SHEET, "title": ALL, "description": f"described: {ALL}"}
    (folder / "mine.yaml").write_text(json.dumps(sheet))  # JSON is YAML
    study = expand_study(str(folder / "mine.yaml"), folder / "results")
    write_expansion(study, folder / "results")
    failure = make_failure(
        study.cell(tiny.PAIR, "kd").runs[0],
        f"{ESCAPES} {ALL}",
        details=f"Traceback {ESCAPES}",
    )
    Store(folder / "results").run(failure.id).write(failure)
    return folder


@pytest.fixture
def marked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the folder as the working directory."""
    monkeypatch.setenv("SKD_STUDIES", str(folder))
    monkeypatch.chdir(folder)
    monkeypatch.setattr("skd.jobs.overview.driverless_jobs", lambda *_: [])
    return folder


# Terminals.


@pytest.mark.parametrize(
    "command",
    [("status", "mine"), ("plan", "mine"), ("list", "studies"), ("show", f"mine/{tiny.PAIR}/kd/0")],
    ids=lambda command: command[0],
)
def test_commands_show_texts_as_they_are(
    skd: Skd, marked: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    status, out, error = skd(*command)
    assert (status, error) == (0, "")
    if command[0] != "show":
        assert MARKUP in out
    if command[0] in ("status", "show"):
        assert "red \N{REPLACEMENT CHARACTER}[31m title" in out
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", out)


def test_an_error_line_has_no_escapes(skd: Skd) -> None:
    status, _, error = skd("status", "\x1b[31m")
    assert (status, "\x1b" in error) == (2, False)
    assert "unknown study '\N{REPLACEMENT CHARACTER}[31m'" in error


def drawn(*renderables: object) -> str:
    """Return the text that a terminal receives."""
    console = PlainConsole()
    console.file = io.StringIO()
    console.print(*renderables)
    return console.file.getvalue()


def test_tables_and_texts_are_drawn_without_markup_or_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = Table("name", title=MARKUP)
    table.add_row(f"{MARKUP} {ESCAPES}")
    text = drawn(table, Text(f"{MARKUP} {ESCAPES}", style="bold"), MARKUP)
    assert text.count("[ours]") == 4
    assert "\x1b[31m" not in text
    assert "\x1b]" not in text
    assert "\x9b" not in text
    assert "\x1b[1" in text  # Rich's own: the bold text


def test_progress_bars_show_labels_as_they_are() -> None:
    bar = RunProgressBar(MARKUP, epochs=1, steps=2)
    (task,) = bar._bar.tasks
    assert str(bar._bar.columns[0](task)) == MARKUP
    with Progress(description_column(), console=PlainConsole(stderr=True)) as progress:
        progress.add_task(f"{MARKUP} [/]")
        assert MARKUP in drawn(progress.get_renderable())


def test_printable_keeps_lines_and_replaces_the_rest() -> None:
    assert printable("a\tb\nc é 漢") == "a\tb\nc é 漢"
    assert printable("\x1b\x07\x9b\r\x00\ud800") == "\N{REPLACEMENT CHARACTER}" * 6


# Files of a report.


class Tags(HTMLParser):
    """Collects the scripts that a browser would run and the text that it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.handlers, self.text = 0, [], []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_report_of_such_a_study_escapes_everything(marked: Path) -> None:
    index = write_report(load_expansion("mine", marked / "results"), marked / "results", 0.5)
    page = index.read_text()
    tags = Tags()
    tags.feed(page)
    assert (tags.scripts, tags.handlers) == (1, [])  # the page's own script
    assert "<script>alert" not in page
    page_text = " ".join(" ".join(tags.text).split())
    assert page_text.count(" ".join(ALL.split())) >= 2  # title and description
    assert "7*7" in page
    for path in index.parent.rglob("*.tex"):
        text = path.read_text()
        assert r"\input{/etc" not in text
        assert text.count(r"\end{document}") <= 1
    for path in index.parent.rglob("*.md"):
        assert "<script" not in path.read_text()


@pytest.mark.parametrize("text", [LATEX, ALL, ESCAPES])
def test_latex_has_no_command_from_a_text(text: str) -> None:
    escaped = escape_latex(text)
    own = r"\\(?:textbackslash|textasciitilde|textasciicircum)\{\}|\\[{}$&#%_]|\$[<>|]\$"
    rest = re.sub(own, "", escaped)
    assert not re.search(r"[\\$&#%_^~\x00-\x1f]", rest)
    assert rest.count("{") == rest.count("}")


def test_a_table_of_such_texts_keeps_its_cells() -> None:
    columns = (TableColumn(ALL), TableColumn(MARKDOWN))
    rows = [(TableEntry(ALL), TableEntry(MARKDOWN))] * 2
    table = ReportTable("key", ALL, ALL, columns, rows)
    lines = table_markdown(table).splitlines()
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")]
    assert cells == [3, 3, 3, 3]
    body = table_latex(table).split(r"\midrule")[1].split(r"\bottomrule")[0].strip()
    ends = [len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines()]
    assert ends == [1, 1]


def test_markdown_shows_marks_instead_of_obeying_them() -> None:
    escaped = escape_markdown(MARKDOWN)
    assert not re.search(r"(?<!\\)[|*_`\[~$#]", escaped)
    assert "<" not in escaped


# Names, which are used in the shell, in paths and in SLURM.


@pytest.mark.parametrize(
    "name",
    ["a b", "a'b", 'a"b', "a;b", "$(a)", "a`b", "a/b", "../a", "-a", "a\nb", "{a}", "a--b", ""],
)
def test_names_that_a_shell_or_a_path_would_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))
    path = tmp_path / "mine.yaml"
    entry = tiny.SHEET["teachers"]["teacher"]
    pair = {"teacher": name, "student": "resnet8"}
    for changes in (
        {"methods": [{"name": name, "like": "kd"}]},
        {"teachers": {name: entry}, "pairs": [pair]},
    ):
        path.write_text(json.dumps({**tiny.SHEET, **changes}))
        with pytest.raises(StudyError, match="names consist of letters"):
            read_sheet(path)
    if "/" not in name and name:
        path.rename(tmp_path / f"{name}.yaml")
        with pytest.raises(StudyError, match="the study's name"):
            find_sheet(name)
