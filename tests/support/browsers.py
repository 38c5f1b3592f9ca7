"""A real Chromium, driven by Playwright: the Chromium of the system, so that none is downloaded."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

# The headless shell is the same browser without windows: its pages take half of the processor time.
PROGRAM_PATHS = (
    "/usr/bin/chromium-headless-shell",
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
)
FLAGS = (
    "--headless",
    "--no-sandbox",  # the tests may run as root, and open only their own pages
    "--no-zygote",  # no zygote process is needed to fork the processes of pages
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # containers have little shared memory
    "--hide-scrollbars",
    "--js-flags=--no-maglev,--no-turbofan",  # pages are open for a second, too short for optimized scripts to pay
)


def program():
    """The path of Chromium, or None."""
    path = next((path for path in PROGRAM_PATHS if Path(path).exists()), None)
    return path or shutil.which("chromium")


AXE_OPTIONS = {
    "rules": {"target-size": {"enabled": True}},  # WCAG 2.2; axe checks it only on request
    "resultTypes": ["violations"],  # otherwise axe also describes each element that passes
}


def violations(page):
    """The rules of axe that a page violates, each with the first element that violates it."""
    from axe_playwright_python.base import AXE_FILE_PATH

    page.wait_for_load_state()  # a click waits only for the start of a page, which has no style sheet then
    if not page.evaluate("'axe' in window"):
        # Later pages load axe themselves: sending its half a megabyte takes as long as a small page.
        page.add_init_script(path=AXE_FILE_PATH)
        page.evaluate(Path(AXE_FILE_PATH).read_text("utf-8"))
    results = page.evaluate("options => axe.run(options)", AXE_OPTIONS)["violations"]
    return [(violation["id"], violation["nodes"][0]["html"]) for violation in results]


@contextmanager
def chromium():
    """A headless Chromium without a user profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()
