"""The view as a web application: addresses, who may look, and what a browser may do with it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from eapo_agents.errors import EapoError
from eapo_agents.runs.view.pages import asset, environment, render
from eapo_agents.runs.view.site import LIVE_MS, NotFoundError, Site, Values
from eapo_agents.runs.view.state import State

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_ASSETS = {"view.css": "text/css", "view.js": "text/javascript"}
_LARGEST = 2**62
_PATIENCE_S, _SOON_MS = 0.5, 1_000
"""How long a page waits for rows that take long, and when it asks for them again."""
Page = tuple[str, Values]


def make_app(site: Site, *, token: str, port: int) -> ASGIApp:
    """Return the application.

    Args:
        token: who has it may look. It is asked for once, and then a cookie.
        port: where it listens, on this machine only.
    """
    pages: dict[str, Callable[[Site, _Query], Page]] = {
        "/": _runs,
        "/run": _run,
        "/step": _step,
        "/group": _group,
        "/rollouts": _rollouts,
        "/rollout": _rollout,
        "/tokens": _tokens,
        "/samples": _samples,
        "/flips": _flips,
        "/ledger": _ledger,
        "/search": _search,
    }
    routes = [Route(path, _endpoint(site, page)) for path, page in pages.items()]
    routes.append(Route("/static/{name}", _static))
    app = Starlette(routes=routes, exception_handlers={404: _nothing_here, 500: _failed})
    return Guard(app, token=token, port=port)


@dataclass(frozen=True, slots=True)
class _Query:
    """What an address asks for."""

    given: Mapping[str, str]
    several: list[tuple[str, str]]

    def text(self, name: str) -> str:
        return self.given.get(name, "")

    def number(self, name: str, default: int = 0) -> int:
        """Return a whole number that is not negative.

        Raises:
            NotFoundError: it is not one.
        """
        text = self.text(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit()) or int(text) > _LARGEST:
            raise NotFoundError(f"The address's {name} must be a whole number, got '{text[:50]}'.")
        return int(text)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.several if key == name]


def _endpoint(site: Site, page: Callable[[Site, _Query], Page]) -> Callable[[Request], Response]:
    def respond(request: Request) -> Response:  # in a thread of its own: reading takes time
        query = _Query(dict(request.query_params), request.query_params.multi_items())
        try:
            template, values = page(site, query)
        except NotFoundError as error:
            return _told(site, str(error), 404)
        except EapoError as error:
            return _told(site, str(error), 500)
        return HTMLResponse(render(template, _common(site) | values))

    return respond


def _rollout_pages() -> ModuleType:
    """Return the module, which takes a second to import: the first page does not wait for it."""
    from eapo_agents.runs.view import rollout_pages

    return rollout_pages


def _run_pages() -> ModuleType:
    """The same of the pages of runs."""
    from eapo_agents.runs.view import run_pages

    return run_pages


def preload() -> None:
    """Load what the other pages need."""
    made = environment()
    for name in made.list_templates(extensions=["html"]):
        made.get_template(name)
    import trainers.objective  # noqa: F401

    _rollout_pages()


def _common(site: Site) -> Values:
    return {"live_ms": 0, "place": None, "title": "", "roots": site.roots, "q": ""}


def _told(site: Site, sentence: str, status: int) -> Response:
    values = _common(site) | {"title": "Not found", "sentence": sentence}
    return HTMLResponse(render("told.html", values), status_code=status)


def _nothing_here(request: Request, error: Exception) -> Response:
    return PlainTextResponse("There is no such page.\n", status_code=404)


def _failed(request: Request, error: Exception) -> Response:
    return PlainTextResponse(
        f"The page cannot be made ({type(error).__name__}). This is a fault of eapo view: the "
        "terminal that it runs in has more. The other pages still work.\n",
        status_code=500,
    )


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        return PlainTextResponse("There is no such file.\n", status_code=404)
    return Response(asset(name), media_type=_ASSETS[name])


def _runs(site: Site, query: _Query) -> Page:
    lines = [site.line(place) for place in site.places().values()]
    running = any(line.state is State.RUNNING for line in lines)
    return "runs.html", {"lines": lines, "live_ms": LIVE_MS if running else 0, "title": "Runs"}


def _run(site: Site, query: _Query) -> Page:
    template, values = site.run_page(query.text("at"), query.all("with"))
    line = values["line"]
    running = getattr(line, "state", None) is State.RUNNING
    return template, values | {
        "live_ms": LIVE_MS if running else 0,
        "title": query.text("at"),
        "others": query.all("with"),
    }


def _step(site: Site, query: _Query) -> Page:
    number = query.number("step")
    found = _rollout_pages().step(
        site, query.text("at"), query.text("run"), number, query.number("page")
    )
    # a step that another has followed does not change any more
    live = found["behind"] is None and site.is_running(query.text("at"), query.text("run"))
    return "step.html", found | {"live_ms": LIVE_MS if live else 0, "title": f"Step {number}"}


def _group(site: Site, query: _Query) -> Page:
    found = _rollout_pages().group(site, query.text("at"), query.text("run"), query.text("group"))
    live = not found["is_over"] and site.is_running(query.text("at"), query.text("run"))
    title = query.text("group")
    return "group.html", found | {"live_ms": LIVE_MS if live else 0, "title": title}


def _rollouts(site: Site, query: _Query) -> Page:
    found = _rollout_pages().rollouts(
        site,
        query.text("at"),
        query.text("run") or None,
        verdict=query.text("verdict"),
        role=query.text("role"),
        asked=query.text("asked") == "1",
        before=query.number("before") or None,
    )
    return "rollouts.html", found | {"title": "Rollouts"}


def _rollout(site: Site, query: _Query) -> Page:
    number = query.number("id")
    found = _rollout_pages().rollout(site, query.text("at"), number)
    return "rollout.html", found | {"title": f"Rollout {number}"}


def _tokens(site: Site, query: _Query) -> Page:
    number = query.number("id")
    found = _rollout_pages().tokens(
        site,
        query.text("at"),
        number,
        colour=query.text("colour"),
        start=query.number("start"),
        patience_s=_PATIENCE_S,
    )
    more = not getattr(found["rows"], "is_whole", True)
    live = {"live_ms": _SOON_MS if more else 0}
    return "tokens.html", found | live | {"title": f"Tokens of rollout {number}"}


def _samples(site: Site, query: _Query) -> Page:
    found = _run_pages().samples(
        site,
        query.text("at"),
        query.text("of"),
        verdict=query.text("verdict"),
        wanted=query.text("wanted"),
        page=query.number("page"),
    )
    return "samples.html", found | {"title": f"Samples of {found['of']}"}


def _flips(site: Site, query: _Query) -> Page:
    found = _run_pages().flips(
        site, query.text("a"), query.text("b"), query.text("of"), only=query.text("only")
    )
    return "flips.html", found | {"title": "Flips"}


def _ledger(site: Site, query: _Query) -> Page:
    found = _run_pages().ledger(
        site, query.text("at"), expert=query.text("expert"), status=query.text("status")
    )
    return "ledger.html", found | {"title": "Experts"}


def _search(site: Site, query: _Query) -> Page:
    found = _rollout_pages().search(site, query.text("q"), query.text("at"))
    return "search.html", found | {"title": "Search", "q": query.text("q")}


class Guard:
    """Lets in who has the token, at this machine's own names, and only to look."""

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self._app = app
        self._token = token
        self._cookie = f"eapo_view_{port}"
        self._hosts = {f"{host}:{port}" for host in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", [])}
                added = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message["headers"] = [
                    *message.get("headers", []),
                    *((name, value) for name, value in added if name not in given),
                ]
            await send(message)

        refused = self._refused(Request(scope))
        await (refused or self._app)(scope, receive, guarded)

    def _refused(self, request: Request) -> Response | None:
        if request.headers.get("host", "") not in self._hosts:
            return PlainTextResponse(
                "This page is for the machine that it runs on, at 127.0.0.1.\n", status_code=403
            )
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("This page can only be looked at.\n", status_code=405)
        given = request.query_params.get("token")
        if given is not None and self._is_token(given):
            return self._let_in(request)
        if not self._is_token(self._cookie_of(request)):
            return PlainTextResponse(
                "Open the address that `eapo view` printed: it has a token.\n", status_code=403
            )
        return None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(errors="replace"), self._token.encode())

    def _cookie_of(self, request: Request) -> str:
        try:
            found = SimpleCookie(request.headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return "" if found is None else found.value

    def _let_in(self, request: Request) -> Response:
        """Set the cookie, and lead to the same address without the token."""
        pairs = parse_qsl(request.url.query, keep_blank_values=True)
        query = urlencode([(name, value) for name, value in pairs if name != "token"])
        # the path alone, and one slash: an address must not lead to another machine
        path = "/" + request.url.path.lstrip("/\\")
        response = RedirectResponse(f"{path}?{query}" if query else path, status_code=303)
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return response
