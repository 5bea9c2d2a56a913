"""The page in a browser: loads from disk, plays, and shows the recorded numbers."""

import base64
import io
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from ncp_agents.agents.saved_policy import load
from ncp_agents.agents.zoo import find
from ncp_agents.envs.protocol import protocol
from ncp_agents.explain.activations import record_trace
from ncp_agents.explain.circuit_graph import circuit_graph
from ncp_agents.rendering.page import write_page

pytestmark = pytest.mark.slow

sync_api = pytest.importorskip("playwright.sync_api")

STEPS = 100
BOTH = pytest.mark.parametrize("shown", ["pong-cfc", "pong-ltc"], indirect=True, scope="module")
TITLE = "<b>pong</b> & </script>"


def chromium():
    """Its path. Playwright's own browsers are not needed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(
            "the page needs Chromium to be tested: apt-get install chromium"
        )
    return path


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        # Inside a container Chromium's own sandbox is often not allowed.
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def shown(request, tmp_path_factory):
    """The file, the trace and the circuit."""
    name = getattr(request, "param", "pong-cfc")
    policy = load(find(name))
    played = record_trace(policy, protocol=protocol("v4", max_frames=4 * STEPS), seed=2)
    graph = circuit_graph(policy)
    path = tmp_path_factory.mktemp("page") / f"{name}.html"
    write_page(path, played, graph, TITLE)
    return path, played, graph


@pytest.fixture
def opened(browser, shown):
    """Opens the page; at the end nothing may have gone wrong or out to the network."""
    contexts, wrong = [], []

    def open_page(**options):
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 860}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if requests else None)
        requests = False
        page.goto(shown[0].as_uri())
        requests = True
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def number(text):
    return float(text.replace("−", "-").rstrip("%"))


def scrub(page, step):
    page.locator("#scrub").fill(str(step))
    page.wait_for_selector(f"#screen[data-step='{step + 1}']")


def place(page, node):
    """The middle of a node, in pixels of the window."""
    box = page.locator(f"[data-node='{node}']").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@BOTH
def test_the_numbers_are_the_recorded_ones(opened, shown):
    _, played, graph = shown
    page = opened()
    assert page.title() == page.locator("h1").inner_text() == TITLE
    assert page.locator("#about").inner_text() == graph.about
    for step in (0, 37, 71, STEPS - 1):
        scrub(page, step)
        assert page.locator("#step").inner_text() == str(step + 1)
        assert number(page.locator("#value").inner_text()) == pytest.approx(
            played.values[step], abs=0.00501
        )
        assert number(page.locator("#return").inner_text()) == played.returns[step]
        chances = [number(text) for text in page.locator(".chance").all_text_contents()]
        np.testing.assert_allclose(chances, 100 * played.probabilities[step], atol=0.501)
        assert (
            page.locator(".taken .action").text_content() == graph.names[128:][played.actions[step]]
        )


def test_the_frame_is_the_recorded_one(opened, shown):
    page = opened()
    for step, frame in enumerate(shown[1].frames):
        if step in (0, 63, 64, 90):
            scrub(page, step)
            url = page.evaluate("document.getElementById('screen').toDataURL()")
            picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
            np.testing.assert_array_equal(np.asarray(picture)[..., :3], frame)


def test_play_pause_and_step_by_button_and_keyboard(opened):
    page = opened()
    step = page.locator("#step")
    page.get_by_label("One step forward").click()
    assert step.inner_text() == "2"
    page.keyboard.press("ArrowRight")
    assert step.inner_text() == "3"
    page.keyboard.press("ArrowLeft")
    page.get_by_label("One step back").click()
    page.keyboard.press("ArrowLeft")
    assert step.inner_text() == "1"
    page.keyboard.press("End")
    assert step.inner_text() == str(STEPS)
    page.keyboard.press("Home")

    page.locator("#speed").select_option("4")
    page.locator("h1").click()
    page.keyboard.press("Space")
    sync_api.expect(step).to_have_text(re.compile(r"^([6-9]|\d\d+)$"))
    page.get_by_label("Pause").click()
    stopped = step.inner_text()
    page.wait_for_timeout(150)
    assert step.inner_text() == stopped
    page.get_by_label("Play").click()
    sync_api.expect(step).to_have_text(str(STEPS), timeout=20_000)
    page.wait_for_selector("#play:not(.playing)")


def test_an_episode_plays_in_real_time(opened):
    page = opened()
    passed = page.evaluate(
        """() => new Promise((resolve) => {
          const step = document.getElementById("step");
          const from = [performance.now(), Number(step.textContent)];
          document.getElementById("play").click();
          setTimeout(() => resolve([(performance.now() - from[0]) / 1000,
            Number(step.textContent) - from[1]]), 1500);
        })"""
    )
    assert passed[1] == pytest.approx(15 * passed[0], abs=3)


def test_scrubbing_on_the_plot_over_time(opened):
    page = opened()
    box = page.locator("#plot").bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 20)
    page.mouse.down()
    assert page.locator("#step").inner_text() in ("50", "51")
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + 30)
    page.mouse.up()
    assert page.locator("#step").inner_text() == str(STEPS)
    page.mouse.move(middle, box["y"] + 20)
    assert page.locator("#step").inner_text() == str(STEPS)


def test_hovering_names_a_neuron_and_shows_its_activity(opened, shown):
    _, played, graph = shown
    page = opened()
    scrub(page, 50)
    assert page.locator("#tip").is_hidden()
    for node in (3, 64, 100, 127):
        page.mouse.move(*place(page, node))
        assert page.locator("#tip b").inner_text() == graph.names[node]
        shown_activity = number(page.locator("#tip output").inner_text())
        assert shown_activity == pytest.approx(played.signals[50, node], abs=0.000501)
    drawn = page.evaluate(
        """() => { const canvas = document.querySelector("#tip canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.some((x) => x > 0); }"""
    )
    assert drawn
    page.mouse.move(5, 5)
    assert page.locator("#tip").is_hidden()


@BOTH
def test_following_a_neuron_lists_its_strongest_synapses(opened, shown):
    _, played, graph = shown
    page = opened()
    scrub(page, 60)
    currents = graph.currents(played.signals)
    for node in (70, 100):
        page.mouse.move(*place(page, node))
        page.mouse.down()
        page.mouse.up()
        assert page.locator("#name").inner_text() == graph.names[node]
        assert page.locator("#follow").input_value() == str(node)
        activity = number(page.locator("#activity").inner_text())
        assert activity == pytest.approx(played.signals[60, node], abs=0.000501)
        for own, other, end in (("inputs", 0, 1), ("outputs", 1, 0)):
            synapses = np.flatnonzero(graph.ends[:, end] == node)
            strongest = synapses[np.argsort(-np.abs(currents[:, synapses]).mean(0))][:6]
            names = page.locator(f"#{own} .name").all_inner_texts()
            assert names == [graph.names[graph.ends[s, other]] for s in strongest]
            numbers = [number(text) for text in page.locator(f"#{own} output").all_inner_texts()]
            np.testing.assert_allclose(numbers, currents[60, strongest], atol=0.00051)
    first = page.locator("#inputs .name").first.inner_text()
    page.locator("#inputs button").first.click()
    assert page.locator("#name").inner_text() == first
    page.keyboard.press("Escape")
    assert page.locator("#followed").is_hidden()
    page.locator("#follow").select_option(label=graph.names[90])
    assert page.locator("#name").inner_text() == graph.names[90]


def test_light_and_dark(opened):
    ground = "getComputedStyle(document.body).backgroundColor"

    def brightness(page):
        return sum(map(int, re.findall(r"\d+", page.evaluate(ground))[:3]))

    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    assert brightness(light) > 600
    assert brightness(dark) < 150
    dark.get_by_label("Light or dark").click()
    assert brightness(dark) == brightness(light)
    light.emulate_media(color_scheme="dark")
    light.wait_for_selector("html[data-theme='dark']")


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_nothing_is_cut_off_at_any_width(opened, width):
    page = opened(viewport={"width": width, "height": 800})
    page.locator("#follow").select_option("100")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    scale = page.locator("#screen").bounding_box()["width"] / 160
    assert scale >= 1
    assert scale == int(scale)
    stage = page.locator("#stage").bounding_box()
    for node in (0, 64, 127, 133):
        x, y = place(page, node)
        assert stage["x"] <= x <= stage["x"] + stage["width"]
        assert stage["y"] <= y <= stage["y"] + stage["height"]


def test_every_control_has_an_accessible_name(opened):
    page = opened()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, [role]")].filter((one) =>
          !one.getAttribute("aria-label") && !one.labels?.length && !one.textContent.trim()
        ).map((one) => one.outerHTML)"""
    )
    assert unnamed == []


def test_a_page_is_replaced_whole(shown, tmp_path):
    _, played, graph = shown
    (tmp_path / "game.html").write_text("old")
    write_page(tmp_path / "game.html", played, graph, "pong")
    assert (tmp_path / "game.html").stat().st_size > 100_000
    assert len(list(tmp_path.iterdir())) == 1
