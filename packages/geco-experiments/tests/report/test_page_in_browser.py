"""The page in a real headless browser, driven over the DevTools protocol on two pipes."""

import json
import os
import shutil
import subprocess

import pytest

from geco_experiments.report import build_report
from geco_experiments.results.findings import Claim, Figure, Findings, Table
from geco_experiments.studies.common.style import new_figure, save_figure

BROWSER = next(
    (path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))),
    None,
)
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or chrome on this machine: the page cannot be opened"
)


class Browser:
    """Commands out on one pipe, answers and events in on another; messages end with a NUL."""

    def __init__(self, profile):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()

        def pipes():  # the protocol reads from descriptor 3 and writes to descriptor 4
            low, high = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self.process = subprocess.Popen(
            [BROWSER, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader = os.fdopen(ours_in, "rb", buffering=0)
        self.writer = os.fdopen(ours_out, "wb", buffering=0)
        self.events, self.buffer, self.last, self.session = [], b"", 0, None

    def receive(self):
        while b"\0" not in self.buffer:
            part = self.reader.read(65536)
            assert part, "the browser has gone"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        self.last += 1
        command = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        self.writer.write(json.dumps(command).encode() + b"\0")
        while True:
            message = self.receive()
            if message.get("id") == self.last:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, url):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"]["value"]

    def named(self, method):
        return [event["params"] for event in self.events if event["method"] == method]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.close()
        self.writer.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with two drawn figures, a wide table and long names."""
    folder = tmp_path_factory.mktemp("report")
    study = folder / "studies" / "figure-4"
    study.mkdir(parents=True)
    for name in ("one", "two"):
        figure, (axes,) = new_figure()
        axes.plot([1, 2, 3], [1, 4, 9], label="κ")
        save_figure(figure, study / f"{name}.svg")
    wide = tuple(f"a rather long heading {index}" for index in range(12))
    Findings(
        name="figure-4",
        title="Information plane",
        source="Figure 4 [paper]",
        look_for="the line",
        order=4,
        figures=(Figure("one.svg", "first", "a"), Figure("two.svg", "second", "b")),
        tables=(Table("wide", wide, (tuple("0.123456" for _ in wide),)),),
        claims=(Claim("a claim", "a rule", "a number", "holds"),),
        runs=("digits-" + 12 * "very-long-name-",),
    ).write(study)
    return build_report(folder)


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    try:
        opened.open(page.as_uri())
        yield opened
    finally:
        opened.close()


def test_every_image_has_loaded(browser):
    sizes = browser.value("[...document.images].map(i => i.complete ? i.naturalWidth : 0)")
    assert len(sizes) == 2
    assert min(sizes) > 0


def test_nothing_comes_from_outside(browser):
    urls = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
    assert urls
    assert all(url.startswith(("file://", "data:")) for url in urls), urls


def test_the_console_is_silent(browser):
    entries = browser.named("Log.entryAdded") + browser.named("Runtime.exceptionThrown")
    assert not entries
    assert not browser.named("Runtime.consoleAPICalled")


def test_the_page_fits_a_phone(browser):
    browser.call("Emulation.setDeviceMetricsOverride", **PHONE)
    assert browser.value("innerWidth") == PHONE["width"]
    assert browser.value("document.documentElement.scrollWidth") <= PHONE["width"]
    small = browser.value("Math.min(...[...document.images].map(i => i.clientWidth))")
    assert small > 0.8 * PHONE["width"]
