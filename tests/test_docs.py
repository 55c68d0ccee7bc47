"""The documents tell the truth about names: links lead somewhere, names exist, messages and flags are the code's."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from scifm import cli
from scifm.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
PAGES += sorted((ROOT / "datasets").glob("*/README.md"))
IDS = [str(p.relative_to(ROOT)) for p in PAGES]
SOURCES = sorted((ROOT / "scifm").rglob("*.py"))
FILL = "…"


def prose(text):
    """The text without its fenced blocks."""
    return re.sub(r"^(`{3,})[^\n]*\n.*?^\1$", "", text, flags=re.M | re.S)


def links(text):
    found = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def slug(heading):
    words = re.sub(r"[^\w\- ]", "", heading.lower())
    return words.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", prose(target.read_text(encoding="utf-8")), re.M)
            assert anchor in map(slug, headings), f"{page.name} links to {link}; {target.name} has no such heading"


def resolve(name):
    """The object of a dotted name, importing as much of it as is a module."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(".".join(parts[:i]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_names_of_scifm_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in sorted(set(re.findall(r"\bscifm(?:\.[A-Za-z_]\w*)+", text))):
        if name == "scifm.sh":
            continue
        try:
            resolve(name)
        except (ImportError, AttributeError):
            pytest.fail(f"{page.name} names {name}, which does not exist")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_short_names_of_public_modules_exist(page):
    """`networks.PointNet`, `Prior.fit`, `trace.Exact()`: in backticks, with a public name of scifm in front."""
    import scifm

    for code in re.findall(r"`([^`\n]+)`", prose(page.read_text(encoding="utf-8"))):
        match = re.match(r"([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*)+)\b(?!\.\w)", code)
        if match and match[1] in scifm.__all__ and not code.endswith((".md", ".py", ".jsonl")):
            assert resolve(f"scifm.{match[1]}{match[2]}") is not None


def messages():
    """Every text in the package, with … for what is filled in."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else FILL for v in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def pattern(heading):
    """A heading as a pattern on `messages`: a … also stands for several pieces, and for one that is left out."""
    return ".*".join(re.escape(part) for part in heading.split(FILL))


MESSAGES = messages()
HEADINGS = re.findall(r"^### (.+)$", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("heading", HEADINGS)
def test_messages_in_errors_are_the_code_s_own(heading):
    assert re.fullmatch(r"`[^`]+`|`` .+ ``", heading), "a heading of errors.md is a message, in backticks"
    wanted = heading.strip("` ")
    solid = max(wanted.split(FILL), key=len)
    assert len(solid) >= 12, f"{heading}: too little of the message to find it by"
    assert any(re.search(pattern(wanted), m, re.S) for m in MESSAGES), f"no message of scifm reads {heading}"


def test_there_are_enough_messages_and_each_once():
    assert len(HEADINGS) >= 20 and len(set(HEADINGS)) == len(HEADINGS)


def test_a_message_that_is_not_there_is_noticed():
    assert not any(re.search(pattern("Batch: a ragged batch needs no size"), m) for m in MESSAGES)


def commands():
    for page in [*DOCS, ROOT / "README.md"]:
        for code in re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in code.splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] in ("scifm", "./scifm.sh") and words[1] != "test":
                    yield pytest.param(words[1:], id=f"{page.stem}: {' '.join(words[1:])}")


@pytest.mark.parametrize("words", list(commands()))
def test_flags_of_shown_commands_exist(words, capsys):
    """Each flag that the documents show is among those that the command's help lists, and each value fits it."""
    command, rest = words[0], words[1:]
    if rest == ["--help"] or "my_recipe.py" in rest:  # the latter is run by test_readme
        return
    recipe = [rest[0]] if command == "train" and rest and not rest[0].startswith("-") else []
    with pytest.raises(SystemExit) as stop:
        cli.main([command, *recipe, "--help"])
    assert stop.value.code == 0
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))
    flags = [word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    assert set(flags) <= known, f"`scifm {' '.join(words)}`: unknown {sorted(set(flags) - known)}"
    if recipe:
        file = load_recipe(recipe[0])
        for flag in file.flags:
            if flag.option in rest:
                flag.parse(rest[rest.index(flag.option) + 1])


def test_pages_name_no_machine_and_no_registry():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = re.findall(r"/(?:root|work|home|Users|tmp)/\S*|\b\S*(?:pypi\.org|pythonhosted|anaconda\.org)\S*", text)
        assert not found, f"{page.name}: {found}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {
        line.strip() for block in re.findall(r"```\{toctree\}(.*?)```", index, re.S) for line in block.splitlines()
    }
    assert {p.stem for p in DOCS} - {"index"} <= listed
