"""The documentation builds offline, its links and commands exist, the README fits an index."""

import ast
import html.parser
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import readme_renderer.markdown

import keras_pspnet
from keras_pspnet import cli
from keras_pspnet.train.recipe_fields import field_table
from keras_pspnet.train.recipes import RECIPES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    if "docs/notebooks/" not in path.as_posix()
}
HOMEPAGE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
BLOB = f"{HOMEPAGE}/blob/main/"
RAW = BLOB.replace("github.com", "raw.githubusercontent.com").replace("/blob/", "/")

NO_NETWORK = """
import socket
def refuse(*arguments, **named):
    with open({log!r}, "a") as file:
        file.write(repr(arguments[1:]) + "\\n")
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What `make docs` builds, without a network and outside of the working tree."""
    tree, offline = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("offline")
    for name in ("docs", "notebooks", "keras_pspnet"):
        ignored = shutil.ignore_patterns("__pycache__", "runs", "notebooks")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in ("Makefile", "mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tree)
    log = offline / "asked.txt"
    (offline / "sitecustomize.py").write_text(NO_NETWORK.format(log=str(log)))
    environment = {**os.environ, "PYTHONPATH": str(offline)}
    blocked = [sys.executable, "-c", "import socket; socket.getaddrinfo('localhost', 80)"]
    assert subprocess.run(blocked, env=environment, capture_output=True).returncode == 1
    log.unlink()
    done = subprocess.run(
        ["make", "docs", f"BIN={Path(sys.executable).parent}", "READY="],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr and "ERROR" not in done.stderr, done.stderr
    assert not log.exists(), log.read_text()
    return tree / "site"


class Page(html.parser.HTMLParser):
    """The addresses that a page names, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values.get("id"), values.get("name")} - {None}
        for key in ("href", "src", "srcset", "data", "poster"):
            if key in values:
                elsewhere = tag == "a" or (tag, values.get("rel")) == ("link", "canonical")
                (self.links if elsewhere else self.loaded).append(values[key])


def pages(site):
    return {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_the_site_has_every_page(site):
    for source in ROOT.glob("docs/**/*.md"):
        assert (site / source.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        text = (site / "notebooks" / f"{notebook.stem}.html").read_text()
        assert "<img" in text and "IPython" not in re.sub(r"<code>.*?</code>", "", text, flags=re.S)


def test_no_page_loads_anything_from_elsewhere(site):
    found = pages(site)
    assert len(found) > 20
    for path, page in found.items():
        assert page.loaded
        for address in page.loaded:
            assert not urlsplit(address).netloc, f"{path.name} loads {address}"
        assert "fonts.g" not in path.read_text()
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style


def test_what_a_page_loads_is_found():
    page = Page(
        '<link rel="stylesheet" href="https://a/b.css"><script src="//c/d.js"></script>'
        '<img src="e.png" id="f"><a href="https://g">g</a><link rel="canonical" href="https://h">'
    )
    assert page.loaded == ["https://a/b.css", "//c/d.js", "e.png"]
    assert page.links == ["https://g", "https://h"] and page.anchors == {"", "f"}


def test_links_between_pages_lead_somewhere(site):
    found = pages(site)
    checked = 0
    for path, page in found.items():
        if path.name == "404.html":  # its addresses begin at the site's root
            continue
        for address in page.links + page.loaded:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)}: {address}"
            if target in found:
                assert unquote(parts.fragment) in found[target].anchors, f"{path.name}: {address}"
            checked += 1
    assert checked > 500


def test_the_reference_shows_every_name_that_its_pages_list(site):
    for source in ROOT.glob("docs/reference/*.md"):
        names = re.findall(r"^::: (\S+)", source.read_text(), flags=re.M)
        text = (site / "reference" / f"{source.stem}.html").read_text()
        assert set(names) <= Page(text).anchors and ":::" not in text
        assert not names or "Raises:" in text


def links(text):
    """The targets of Markdown's links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<(https?://[^>\s]+)>", text)


def test_the_readme_is_short_and_its_links_are_absolute():
    assert len(README.splitlines()) <= 130
    found = links(README)
    assert len(found) > 15
    for address in found:
        assert address.startswith("https://"), address


@pytest.mark.parametrize("page", PAGES)
def test_links_into_the_repository_name_files_that_exist(page):
    for address in links(PAGES[page]):
        for base in (BLOB, RAW, BLOB.replace("/blob/", "/tree/")):
            if address.startswith(base):
                assert (ROOT / address.removeprefix(base)).exists(), address
        if "github.com/" in address or "githubusercontent" in address:
            assert address.startswith((HOMEPAGE, RAW)), address


def test_links_of_the_readme_to_the_site_name_its_pages(site):
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    found = [link for link in links(README) if link.startswith(address["Documentation"] + "/")]
    assert len(found) > 3
    for link in found:
        assert (site / link.removeprefix(address["Documentation"] + "/")).is_file(), link


def test_the_readme_renders_on_a_package_index():
    rendered = readme_renderer.markdown.render(README)
    assert rendered is not None
    (image,) = re.findall(r'<img[^>]*src="([^"]+)"', rendered)
    assert image.startswith(RAW)
    assert "<table>" in rendered and "<!--" not in rendered


def blocks(text, *languages):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)
    return [code for language, code in fenced if language in languages]


def resolve(thing, parts):
    """Follow attributes; one that does not exist is an AttributeError."""
    for part in parts:
        thing = getattr(thing, part)


@pytest.mark.parametrize("page", [name for name in PAGES if blocks(PAGES[name], "python")])
def test_python_on_a_page_compiles_and_names_what_exists(page):
    for code in blocks(PAGES[page], "python"):
        known = {"keras_pspnet": keras_pspnet}
        nodes = list(ast.walk(ast.parse(code)))
        for node in nodes:
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names} - {"jax"}  # an extra
                assert all(map(importlib.util.find_spec, names))
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    known[alias.name] = getattr(module, alias.name, None) or (
                        importlib.import_module(f"{node.module}.{alias.name}")
                    )
        for node in nodes:
            root, *parts = ast.unparse(node).split(".")
            if root in known and all(part.isidentifier() for part in parts):
                resolve(known[root], parts)


def test_public_names_on_the_pages_exist():
    for text in PAGES.values():
        for name in re.findall(r"`(keras_pspnet(?:\.\w+)+)", text):
            resolve(keras_pspnet, name.split(".")[1:])


def help_of(main, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    return capsys.readouterr().out


def command_lines(program):
    """(page, words) of each line of shell that calls a program, in blocks and between backticks."""
    for page, text in PAGES.items():
        lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`([^`\n]+)`", text)
        for line in (line for line in lines if program in line):  # others may hold one quote
            words = shlex.split(line.split(" && ")[-1], comments=True)
            if program in words[:2]:
                yield page, words[words.index(program) + 1 :]


def options_of(help_text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", help_text))


def test_commands_on_the_pages_exist_with_their_options(capsys):
    known = {
        name: options_of(help_of(cli.main, [name, "--help"], capsys))
        for name in re.findall(r"^    (\w+)", help_of(cli.main, ["--help"], capsys), flags=re.M)
    }
    assert {"train", "evaluate", "export", "convert"} <= set(known)
    seen = set()
    for page, words in command_lines("keras-pspnet"):
        if words[0] not in ("COMMAND", "--version"):
            seen.add(words[0])
            for word in words[1:]:
                if word.startswith("--"):
                    assert word in known[words[0]], f"{page}: keras-pspnet {shlex.join(words)}"
    assert seen >= set(known) - {"demo"}


def test_the_command_line_page_lists_every_option(capsys):
    text = PAGES["docs/reference/command-line.md"]
    everywhere = {"--help", "--traceback"}
    assert all(f"{option}`" in text.partition("## ")[0] for option in everywhere)
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S))
    names = re.findall(r"^    (\w+)", help_of(cli.main, ["--help"], capsys), flags=re.M)
    assert list(sections) == names
    for name in names:
        listed = set(re.findall(r"^\|.*$", sections[name], flags=re.M))
        listed = options_of("\n".join(line.split("|")[1] for line in listed))
        assert listed == options_of(help_of(cli.main, [name, "--help"], capsys)) - everywhere, name


SCRIPTS = {
    "export/release.py": "export/release.py",
    "export/benchmark.py": "export/benchmark.py",
    "export/web/serve.py": "export/web/serve.py",
    "export/cluster/segment_ray.py": "export/cluster/segment_ray.py",
    "runs/device/segment.py": "export/on_device/segment.py",  # a copy
}


@pytest.mark.parametrize("named", SCRIPTS)
def test_scripts_on_the_pages_exist_with_their_options(named, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script"])
    spec = importlib.util.spec_from_file_location("script_on_a_page", ROOT / SCRIPTS[named])
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    known = options_of(help_of(script.main, ["--help"], capsys))
    used = list(command_lines(named))
    pages = {"docs/cluster.md"} if "cluster" in named else {"README.md", "docs/devices.md"}
    assert {page for page, _ in used} >= pages
    for page, words in used:
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{page}: {named} {shlex.join(words)}"


def test_the_training_page_lists_every_recipe_and_every_field():
    text = PAGES["docs/training.md"]
    recipes, fields = (
        [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
        for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    )
    assert set(re.findall(r"`(\w+)`", "".join(row[0] for row in recipes))) == set(RECIPES)
    for row, (name, default, meaning, _) in zip(fields, field_table(), strict=True):
        row = [re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", cell) for cell in row]  # links, backticks
        assert row == [name, default, meaning]


def templates():
    """A pattern for each text that the package can print; what it fills in matches anything."""
    for file in (ROOT / "keras_pspnet").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            if all(isinstance(part, (ast.Constant, ast.FormattedValue)) for part in parts):
                texts = [getattr(part, "value", None) for part in parts]
                texts = [text if isinstance(text, str) else None for text in texts]
                if len("".join(filter(None, texts))) > 15:
                    yield "".join(".+" if text is None else re.escape(text) for text in texts)


def test_the_errors_on_the_page_are_those_of_the_package():
    rows = re.findall(r"^\| `(.+?)` \|", PAGES["docs/errors.md"], flags=re.M)
    known = re.compile("|".join(f"(?:.+: )?(?:{text})" for text in set(templates())))
    for message in rows:
        assert known.fullmatch(message), message
    assert len(rows) > 20


def test_the_tables_are_those_of_the_results():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "readme_table.py", "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert PAGES["docs/results.md"].count("\n|") > 35


def test_the_citation_and_the_changelog_name_this_version():
    assert f"version: {keras_pspnet.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changes, flags=re.M)[1] == keras_pspnet.__version__
