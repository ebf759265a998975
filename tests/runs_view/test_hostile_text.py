"""Text from models, experts, files and folders is text on every page; keys are on none."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from eapo_agents.runs.view.exporting import export_view
from eapo_agents.runs.view.pages import render, visible
from eapo_agents.store import TraceStore
from eapo_agents.types import (
    Consultation,
    ConsultationStatus,
    PolicyVersion,
    Problem,
    Role,
    Sampling,
    StopReason,
    Trajectory,
    Turn,
)

EVIL = (
    "</textarea></pre></script><script>alert(1)</script><img src=x onerror=alert(2)>"
    "\x1b[31mred\x07 \u202egnirts\u202c {{ 7919 * 7907 }} \" onmouseover=alert(3) ' é 漢 🙂"
)
POLICY = PolicyVersion(model=EVIL, base="b", weights="w", step=0)
KEY = "sk-very-secret-key-0123456789"


def evil_trajectory(rollout: int, **changes) -> Trajectory:
    asked = Consultation(
        slot=0,
        expert=EVIL,
        query=EVIL,
        reply=f"{EVIL} {KEY}",
        status=ConsultationStatus.ACCEPTED,
        rho=1.0,
        u=0.5,
        error=EVIL,
    )
    turns = [
        Turn(
            context_ids=(1, 5, 6),
            completion_ids=(7, 8, 2),
            logprobs=(-0.1, -0.2, -0.3),
            parent=parent,
            text=text,
            finish_reason="stop",
            consultations=consultations,
        )
        for parent, text, consultations in (
            (None, f"<think>{EVIL}</think>{EVIL}", (asked,)),
            (0, f"{EVIL} Answer: 1", ()),
            (0, f"a fork {EVIL}", ()),
        )
    ]
    facts = {
        "problem": Problem(
            id=f"p/{EVIL}",
            question=EVIL,
            answer=EVIL,
            grader="exact",
            metadata={"category": EVIL, EVIL: EVIL},
        ),
        "graph": EVIL,
        "role": Role.OWN,
        "turns": tuple(turns),
        "stop_reason": StopReason.ANSWERED,
        "answer": EVIL,
        "reward": float(rollout % 2),
        "correct": bool(rollout % 2),
        "error": None,
        "policy": POLICY,
        "sampling": Sampling(),
        "seed": 0,
        "rollout": rollout,
        "global_step": 1,
    }
    return Trajectory(**{**facts, **changes})


@pytest.fixture(scope="module")
def evil_folder(tmp_path_factory):
    name = "<img src=x onerror=alert(4)> & 'x'\u202e"
    folder = tmp_path_factory.mktemp("evil") / "runs" / name
    folder.mkdir(parents=True)
    (folder / "steps.jsonl").write_text(
        '{"step": 1, "reward": 0.5, "<script>alert(5)</script>": 3}\n{"step": 2, "reward": 1}\n'
    )
    (folder / "recipe.yaml").write_text("name: <script>alert(6)</script>\ntrain: {steps: 2}\n")
    recipe = {"policy": {"model": EVIL, "endpoint": {"key_env": "EAPO_TEST_VIEW_KEY"}}}
    with TraceStore.open(folder / "traces.db", create=True) as store:
        run_id = f"train {EVIL}".replace("\x1b", "").replace("\x07", "")
        store.start_run(run_id, kind="train", recipe=recipe, sampling=Sampling(), policy=POLICY)
        for rollout in range(2):
            store.append(evil_trajectory(rollout), run_id=run_id, group_key=f"1/{EVIL[:90]}")
        failed = replace(evil_trajectory(2), error=EVIL, reward=None, correct=None, turns=())
        store.append(failed, run_id=run_id, group_key=f"1/{EVIL[:90]}")
    return folder.parent


class Elements(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.scripts: list[str | None] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.handlers += [name for name, _ in attributes if name == "style"]
        if tag == "script":
            self.scripts.append(dict(attributes).get("src"))

    def handle_data(self, data):
        self.text += data


def assert_harmless(page: str) -> Elements:
    found = Elements(page)
    assert not {"img", "iframe", "object", "embed", "base"} & set(found.tags)
    assert found.handlers == []
    assert not set("\x1b\x07\u202e\u202c") & set(page)
    return found


def test_hostile_text_is_text_on_every_page(evil_folder, view):
    viewed = view(evil_folder, env={"EAPO_TEST_VIEW_KEY": KEY})
    todo, seen = ["/", "/search?q=%3Cscript%3Ealert", "/search?q=%22+onmouseover"], set()
    paths = set()
    while todo:
        address = todo.pop()
        if address in seen:
            continue
        seen.add(address)
        answer = viewed.client.get(f"{viewed.base}{address}")
        assert answer.status_code == 200, (address, answer.text[-500:])
        if "text/html" not in answer.headers["content-type"]:
            continue
        paths.add(address.partition("?")[0])
        found = assert_harmless(answer.text)
        assert found.scripts == ["/static/view.js"]
        assert "62615533" not in found.text  # a template in a text is not run
        assert KEY not in answer.text
        todo += [html.unescape(one) for one in re.findall(r'href="(/[^"]*)"', answer.text)]
    assert {"/", "/run", "/step", "/group", "/rollout", "/tokens", "/rollouts"} <= paths
    rollout = next(one for one in seen if one.startswith("/rollout?"))
    text = Elements(viewed.client.get(f"{viewed.base}{rollout}").text).text
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in text
    assert "␛[31mred␇" in text
    assert "é 漢 🙂" in text


def test_a_key_of_a_recipe_is_taken_out_of_what_is_shown(evil_folder, view):
    viewed = view(evil_folder, env={"EAPO_TEST_VIEW_KEY": KEY})
    # the first page that is asked for, before any recipe was shown
    assert KEY not in viewed.page("/search", q=KEY[:12])
    (key,) = {html.unescape(found) for found in re.findall(r"at=([^&\"]*)", viewed.page("/"))}
    shown = viewed.client.get(f"{viewed.base}/rollout?at={key}&id=1").text
    assert "[key]" in shown
    assert KEY not in shown


def test_the_exported_file_is_harmless_too(evil_folder, tmp_path):
    written = export_view([str(evil_folder)], tmp_path / "out.html", num_rollouts=3)
    assert written.rollouts == 3
    page = written.file.read_text()
    own = re.search(r"<script>.*?</script>", page, re.S)[0]
    found = assert_harmless(page.replace(own, ""))
    assert "script" not in found.tags
    assert "<script>alert(1)</script>" in found.text
    assert not re.search(r'(src|href)="(?!#|data:)[^"]', page)


def test_control_marks_are_shown_and_do_nothing():
    assert visible("a\x00\x1b\x7f\x85\u202e\ud800b\n\tc") == "a␀␛␡��\ufffdb\n\tc"
    assert visible("plain é 漢 🙂") == "plain é 漢 🙂"


def test_no_template_puts_in_text_as_it_is():
    from eapo_agents.runs.view.pages import environment

    made = environment()
    for name in made.list_templates(extensions=["html"]):
        source = made.loader.get_source(made, name)[0]
        assert "safe" not in source.replace("unsafe", ""), name
        assert "autoescape" not in source, name
    told = render(
        "told.html",
        {
            **{"live_ms": 0, "place": None, "roots": (), "q": EVIL},
            **{"title": EVIL, "sentence": EVIL},
        },
    )
    assert_harmless(told)
