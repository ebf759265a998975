"""The pages in a real browser: no error in its console, and its comforts work."""

import html
import re
import shutil
import subprocess

import pytest

from eapo_agents.runs.lock import locked

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is on the PATH")


def browser(viewed, tmp_path_factory):
    """Opens a page as the browser makes it: (its elements, what its console said)."""
    token = viewed.url.partition("?")[2]

    def open_page(address: str, *options: str) -> tuple[str, list[str]]:
        profile = tmp_path_factory.mktemp("profile")
        joined = f"{address}{'&' if '?' in address else '?'}{token}"
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
        command += ["--enable-logging=stderr", f"--user-data-dir={profile}"]
        command += ["--virtual-time-budget=4000", *options, "--dump-dom"]
        done = subprocess.run(
            [*command, f"{viewed.base}{joined}"], capture_output=True, text=True, timeout=180
        )
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout, said

    return open_page


@pytest.fixture(scope="module")
def browse(viewed, tmp_path_factory):
    return browser(viewed, tmp_path_factory)


@pytest.mark.parametrize(
    "address",
    ["/", "/run?at=runs%2Ftrain", "/run?at=runs%2Fafter", "/flips?a=runs%2Fbefore&b=runs%2Fafter"],
)
def test_no_page_has_an_error_in_the_console(browse, address):
    page, said = browse(address)
    assert "<table" in page or "<svg" in page
    assert said == []


def test_a_rollout_and_its_tokens_have_no_error_either(browse, viewed):
    rollouts = viewed.page("/rollouts", at="runs/train", run="train")
    rollout = html.unescape(re.search(r'href="(/rollout\?[^"]*)"', rollouts)[1])
    for address in (rollout, rollout.replace("/rollout", "/tokens")):
        page, said = browse(address)
        assert said == []
        assert "<h1>" in page


def test_figures_of_a_run_that_is_running_are_renewed(view, tmp_path, tmp_path_factory):
    folder = tmp_path / "runs" / "train"
    folder.mkdir(parents=True)
    (folder / "steps.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    with locked(folder):
        running = view(tmp_path / "runs")
        open_page = browser(running, tmp_path_factory)
        page, said = open_page("/run?at=runs%2Ftrain", "--virtual-time-budget=9000")
        assert "data-renewed" in page
        assert said == []
        assert "data-renewed" not in running.page("/run", at="runs/train")


def test_the_style_is_used_and_the_page_fits_a_telephone(browse, viewed, tmp_path):
    for address in ("/", "/run?at=runs%2Ftrain", "/samples?at=runs%2Fafter"):
        picture = tmp_path / "page.png"
        browse(address, "--window-size=500,800", f"--screenshot={picture}")
        assert picture.stat().st_size > 10_000
