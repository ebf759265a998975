"""What MkDocs is told beyond mkdocs.yml: files outside docs/ that pages link to.

On a code host `[...](../eapo_agents/recipes/scale-model.yaml)` opens the file. The site has no such
folder, so each file that a page links to becomes a page `files/...` that shows it.
"""

import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
_OUTSIDE = re.compile(r"\]\(((?:\.\./)+[\w./+-]+)((?:#[\w-]+)?)\)")
_SHOWN_AS = {".yaml": "yaml", ".py": "python", ".json": "json", ".txt": "text"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file or folder outside docs/ that a page links to."""
    linked = {
        found
        for page in files.documentation_pages()
        for target, _ in _OUTSIDE.findall(page.content_string)
        if (found := _in_repository(page.src_uri, target)) is not None
    }
    for target in sorted(linked):
        uri, content = _page_uri(target), _content(ROOT / target, target)
        page = File.generated(config, uri, content=content)
        page.inclusion = page.inclusion.__class__.NOT_IN_NAV
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files outside docs/ at their pages."""

    def replaced(link: re.Match[str]) -> str:
        target = _in_repository(page.file.src_uri, link[1])
        if target is None:
            return link[0]
        to = posixpath.relpath(_page_uri(target), posixpath.dirname(page.file.src_uri) or ".")
        return f"]({to}{link[2]})"

    return _OUTSIDE.sub(replaced, markdown)


def _in_repository(page: str, link: str) -> str | None:
    """The path from the repository's root that a link of a page means; None within docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path == "docs" or path.startswith("docs/") else path


def _page_uri(target: str) -> str:
    return f"files/{target.strip('/').replace('.', '_')}.md"


def _content(path: Path, name: str) -> str:
    if path.is_dir():
        parts = [f"# {name}\n"]
        for file in sorted(p for p in path.iterdir() if p.suffix in _SHOWN_AS):
            parts += [f"## {file.name}\n", _fenced(file)]
        return "\n".join(parts)
    if not path.is_file():
        raise PluginError(f"A page links to '{name}', and the repository has no such file.")
    return f"# {name}\n\n{_fenced(path)}"


def _fenced(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    return f"````{_SHOWN_AS.get(file.suffix, 'text')}\n{text}\n````\n"


_LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
_LOADING_LINKS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "manifest"}


class _Loaded(HTMLParser):
    """The addresses that a browser asks for when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get(_LOADING.get(tag, ""))
        if tag == "link" and _LOADING_LINKS & set((given.get("rel") or "").split()):
            address = given.get("href")
        if address:
            self.found.append(address)


def loaded_from_elsewhere(text: str, suffix: str) -> list[str]:
    """Return the addresses of other hosts that a file of the site, HTML or CSS, loads."""
    if suffix == ".css":
        addresses = re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s;]+)", text)
    else:
        page = _Loaded()
        page.feed(text)
        addresses = page.found
    return [a for a in addresses if re.match(r"(?:[a-z]+:)?//", a)]


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that asks other hosts for anything."""
    for file in sorted(Path(config.site_dir).rglob("*")):
        if file.suffix in (".html", ".css"):
            found = loaded_from_elsewhere(file.read_text(encoding="utf-8"), file.suffix)
            if found:
                raise PluginError(f"{file} loads from elsewhere: {', '.join(sorted(set(found)))}.")
