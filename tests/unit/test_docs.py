"""The documents can fail: what they name exists, and what exists is in them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "datasync_crawler"
#: Scrapy's own commands that the documents may name beside ours.
SCRAPYS = {"crawl", "list", "settings", "shell", "version", "parse", "fetch", "check", "view",
           "bench"}  # fmt: skip
DOCUMENTS = ("README.md", "docs/settings.md", "docs/architecture.md")


def text(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def own_settings() -> set[str]:
    """Names in the crawler's own block of settings.py."""
    block = text("datasync_crawler/settings.py").split("# --- The crawler's own.")[1]
    block = block.split("# --- Scrapy's:")[0]
    return set(re.findall(r"^([A-Z][A-Z_]+) = ", block, re.MULTILINE))


def own_commands() -> set[str]:
    modules = (PACKAGE / "commands").glob("[a-z]*.py")
    return {path.stem for path in modules if "\nclass Command(" in path.read_text("utf-8")}


def tracked() -> list[Path]:
    """Files under version control; all files where there is none (an unpacked archive)."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        folders = ("datasync_crawler", "tests", "docs", "benchmarks", "scripts")
        return [path for name in folders for path in (PROJECT / name).rglob("*") if path.is_file()]
    paths = [PROJECT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_every_setting_is_documented_and_no_other() -> None:
    """Each of settings.py has a heading in docs/settings.md; each heading is a setting."""
    assert (
        set(re.findall(r"^### `(\w+)`", text("docs/settings.md"), re.MULTILINE)) == own_settings()
    )


def test_every_setting_of_scrapy_that_is_changed_is_documented() -> None:
    """Each name that settings.py assigns stands in docs/settings.md, an aid of the tests too."""
    source = text("datasync_crawler/settings.py")
    named = re.findall(r"^([A-Z][A-Z_]+)(?::.*?)? = ", source, re.MULTILINE)
    documented = set(re.findall(r"`(\w+)`", text("docs/settings.md")))
    assert len(named) > 60
    assert not set(named) - documented


def test_the_example_holds_every_setting_with_its_default() -> None:
    """.env.example names each setting of settings.py once, and a default that it names is true."""
    example = re.findall(r"^([A-Z_]+)=(.*)$", text(".env.example"), re.MULTILINE)
    assert len(example) == len(dict(example))
    assert {name for name, _ in example} == own_settings()
    defaults = dict(
        re.findall(r'_setting\("(\w+)", "([^"]*)"\)', text("datasync_crawler/settings.py"))
    )
    assert {name: value for name, value in example if value} == defaults


def test_every_setting_says_who_uses_it() -> None:
    """In settings.py, on its line or on the first line of it."""
    lines = text("datasync_crawler/settings.py").splitlines()
    for name in own_settings():
        (line,) = [line for line in lines if line.startswith(f"{name} = ")]
        assert "  # " in line, name


def test_every_command_is_in_the_readme() -> None:
    """`scrapy X` for each command of ours."""
    readme = text("README.md")
    missing = {
        name for name in own_commands() - SCRAPYS if not re.search(rf"scrapy {name}\b", readme)
    }
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_exist(document: str) -> None:
    """`scrapy X` in code is a command of ours or of Scrapy; `sh X` is a script that is there."""
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text(document), re.DOTALL))
    assert set(re.findall(r"\bscrapy ([a-z]+)\b", code)) <= own_commands() | SCRAPYS
    for script in re.findall(r"\bsh (\S+\.sh)\b", code):
        assert (PROJECT / script).is_file(), script


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_links_of_a_document_lead_somewhere(document: str) -> None:
    """Relative links and pictures point to files that are there."""
    folder = (PROJECT / document).parent
    for target in re.findall(r"\]\(([^)#\s]+)", text(document)):
        if not re.match(r"[a-z]+:", target):
            assert (folder / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_settings_that_a_document_sets_exist(document: str) -> None:
    """`-s NAME=` names a setting of ours or of Scrapy."""
    from scrapy.settings import default_settings  # noqa: PLC0415

    theirs = {name for name in dir(default_settings) if name.isupper()} | {"JOBDIR"}
    named = set(re.findall(r"-s ([A-Z_]+)=", text(document))) - {"NAME"}
    ours = re.findall(r"^([A-Z_]+) = ", text("datasync_crawler/settings.py"), re.MULTILINE)
    assert named <= theirs | set(ours)


def test_the_tests_that_documents_name_exist() -> None:
    """`test_…` is a file of tests or a function in one; `FILE::FUNCTION` is in that file."""
    files = {path.relative_to(PROJECT / "tests"): path.read_text(encoding="utf-8")
             for path in (PROJECT / "tests").rglob("test_*.py")}  # fmt: skip
    functions = {path: set(re.findall(r"def (test_\w+)", source)) for path, source in files.items()}
    known = {path.stem for path in files}.union(*functions.values())
    for document in (PROJECT / "docs").rglob("*.md"):
        content = document.read_text(encoding="utf-8")
        assert set(re.findall(r"\btest_\w+", content)) <= known, document.name
        for file, function in re.findall(r"([\w/]+\.py)::(\w+)", content):
            found = functions.get(Path(file.removeprefix("tests/")), set())
            assert function in found, f"{document.name}: {file}::{function}"


def test_no_file_names_a_developers_machine() -> None:
    """No path of the machine that it was written on in any file that is kept."""
    # Put together here, so that this file isn't one of them.
    telltale = re.compile(
        "|".join(("/wo" + "rk/", "/tmp" + "/v/", "/ro" + "ot/", "/home/" + r"\w"))
    )
    found = []
    for path in tracked():
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture, a recording
        found += [f"{path.relative_to(PROJECT)}: {hit}" for hit in telltale.findall(content)]
    assert not found


def test_no_script_names_an_index() -> None:
    """Where packages come from is the machine's business: pip's and uv's own settings say it."""
    for path in [*(PROJECT / "scripts").iterdir(), *PROJECT.glob("requirements*")]:
        named = re.findall(r"--[a-z-]*index\S*|https?://\S+", path.read_text(encoding="utf-8"))
        assert named == [], path
