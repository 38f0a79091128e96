"""The page at /, in a real browser. Its server is a small one that answers /predict by looking at the upload."""

import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.types import ASGIApp

from onnx_release.core.errors import DataError
from onnx_release.core.spec import Spec, load_spec
from onnx_release.data.images import decode_image
from onnx_release.data.model_data import ModelData, load_data
from serving.body import parse_files
from serving.docs import DOCS_HEADERS, docs_router
from serving.page import HEADERS, page_router, render_page, upload_kind
from serving.settings import Settings
from tests.picture_release import colours_release, spots_release
from tests.served import in_thread, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Where CI is set nothing is skipped: playwright's own error says that there is no browser.
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ,
    reason="no chromium, chromium-browser or google-chrome on PATH: apt-get install chromium",
)
COLOURS = ["red", "green", "blue"]
SETTINGS = Settings(files=3, upload_bytes=200_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    with visiting(browser) as opened:
        yield opened


@contextmanager
def visiting(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open the page of an application in a new window. In the end the console must be empty, refused uploads apart."""
    problems: list[str] = []
    with ExitStack() as stack:

        def visit(app: ASGIApp, path: str = "", **options: Any) -> Page:
            address = f"http://127.0.0.1:{stack.enter_context(in_thread(app))}/"
            context = browser.new_context(**options)
            stack.callback(context.close)
            context.set_default_timeout(10_000)
            page = context.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text) if unexpected(message) else None)
            page.goto(address + path)
            return page

        yield visit
    assert problems == []


def unexpected(message: Any) -> bool:
    """Whether the console has more than a refusal of /predict: scripts' errors, and violations of the policy."""
    refused = message.text.startswith("Failed to load resource") and message.location["url"].endswith("/predict")
    return message.type in ("error", "warning") and not refused


def model(task: str, decode: Callable[[bytes], Any] = decode_image, name: str = "shapes") -> FastAPI:
    """An application with the page of a release and a /predict that answers as the server does."""
    release, data = release_of(task, name), cast(ModelData, SimpleNamespace(decode=decode))
    app = FastAPI()
    app.include_router(page_router(release, data, SETTINGS))
    app.state.busy = False

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        if app.state.busy:
            return JSONResponse({"error": "64 requests are waiting"}, 503, {"Retry-After": "2"})
        uploads = parse_files(request.headers["content-type"], await request.body(), SETTINGS)
        try:
            items = [decode(upload.content) for upload in uploads]
        except DataError as error:
            return JSONResponse({"error": f"{uploads[0].name}: {error}"}, 422)
        answers = [ANSWERS[task](item) for item in items]
        return JSONResponse({"model": name, "variant": "fp32", "predictions": answers, "inference_time_ms": 3.14})

    @app.get(f"/v2/models/{name}")
    async def metadata() -> dict[str, Any]:
        tensors = [
            [
                {
                    "name": tensor.name,
                    "datatype": "FP32",
                    "shape": [axis if isinstance(axis, int) else -1 for axis in tensor.shape],
                }
                for tensor in kind
            ]
            for kind in (release.spec.inputs, release.spec.outputs)
        ]
        return {
            "name": name,
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": tensors[0],
            "outputs": tensors[1],
        }

    return app


def release_of(task: str, name: str = "shapes") -> Any:
    spec = Spec.model_validate(
        {
            "task": task,
            "sources": [],
            "variants": [],
            "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}, "side": {"min": 2, "max": 9, "example": 4}},
            "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 1, "side", "side"]}],
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 3]}],
        }
    )
    return SimpleNamespace(manifest=SimpleNamespace(model=name, variant="fp32"), spec=spec)


def classify(pixels: np.ndarray) -> dict[str, Any]:
    """How much of the picture's light is red, green and blue."""
    shares = pixels.reshape(-1, 3).sum(0) / pixels.sum()
    order = [int(label) for label in np.argsort(-shares)]
    return {"labels": order, "names": [COLOURS[label] for label in order], "scores": [float(shares[x]) for x in order]}


def detect(pixels: np.ndarray) -> dict[str, Any]:
    """The rectangle round all that is dark, the upper left quarter of it, and one from it to beyond the picture."""
    rows, columns = np.nonzero(pixels.max(2) < 60)
    height, width, _ = pixels.shape
    if not len(rows):
        return {"boxes": [], "scores": [], "labels": [], "names": None, "width": width, "height": height}
    x1, y1, x2, y2 = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
    return {
        "boxes": [[x1, y1, x2, y2], [x1, y1, (x1 + x2) / 2, (y1 + y2) / 2], [x2, y2, 2 * width, 2 * height]],
        "scores": [0.98, 0.5, 0.4],
        "labels": [0, 3, 5],
        "names": None,
        "width": width,
        "height": height,
    }


def embed(item: Any) -> dict[str, Any]:
    """How often a text has each letter; of a picture, its mean colour."""
    if isinstance(item, str):
        return {"vector": [float(item.lower().count(chr(letter))) for letter in range(ord("a"), ord("z") + 1)]}
    return {"vector": item.reshape(-1, 3).mean(0).tolist()}


ANSWERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "classification": classify,
    "detection": detect,
    "embedding": embed,
}


def decode_text(content: bytes) -> str:
    return content.decode()


def png(colour: str, size: tuple[int, int] = (60, 40)) -> bytes:
    return encoded(Image.new("RGB", size, colour), "PNG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def upload(name: str, content: bytes) -> Any:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def transfer(page: Page, *files: tuple[str, bytes]) -> Any:
    """What a browser hands over of files that are dropped or pasted."""
    return page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files)
                transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            return transfer;
        }""",
        [[name, list(content)] for name, content in files],
    )


def card(page: Page, name: str) -> Any:
    return page.get_by_role("article", name=name)


def tangerine() -> bytes:
    """Half as much green as red, a quarter as much blue."""
    return png("#c86432")


@needs_browser
def test_a_chosen_picture_has_its_names_and_scores_as_bars_beside_it(visit):
    page = visit(model("classification"))
    expect(page).to_have_title("shapes")
    expect(page.get_by_text("fp32, classification")).to_be_visible()
    page.get_by_label("Drop pictures here").set_input_files(upload("tangerine.png", tangerine()))
    found = card(page, "tangerine.png")
    expect(found.get_by_role("listitem")).to_have_text(["red 57.1 %", "green 28.6 %", "blue 14.3 %"])
    expect(found).to_contain_text("3.1 ms in the model")
    expect(page.get_by_role("status")).to_have_text("tangerine.png: red, 57.1 %")
    widths = [bar.bounding_box()["width"] for bar in found.locator(".share").all()]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.05) and widths[0] / widths[2] == pytest.approx(4, rel=0.05)
    assert found.get_by_alt_text("tangerine.png").evaluate("image => image.naturalWidth") == 60


@needs_browser
def test_the_page_of_a_release_shows_what_its_server_answers(browser, tmp_path):
    spots = Image.new("RGB", (320, 80))
    spots.paste((255, 255, 255), (100, 20, 200, 40))
    page = browser.new_page()
    with serving(colours_release(tmp_path / "colours")) as server:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.get_by_label("Drop pictures here").set_input_files(upload("red.png", png("red")))
        expect(card(page, "red.png").get_by_role("listitem").first).to_contain_text("red ")
        page.get_by_label("Drop pictures here").set_input_files(upload("bad.png", b"no picture"))
        expect(card(page, "bad.png").locator(".bad")).to_contain_text("not a picture in one of the formats")
    with serving(spots_release(tmp_path / "spots")) as server:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.get_by_label("Drop pictures here").set_input_files(upload("spot.png", encoded(spots, "PNG")))
        expect(card(page, "spot.png")).to_contain_text("spot 100")
    page.close()


@needs_browser
def test_pictures_are_dropped_and_pasted_several_at_once_and_no_more_than_the_server_says(visit):
    page = visit(model("classification"))
    files = [(f"{name}.png", png(name)) for name in ("red", "lime", "blue", "black")]
    page.dispatch_event("#zone", "drop", {"dataTransfer": transfer(page, *files)})
    expect(page.locator("article h2")).to_have_text(["red.png", "lime.png", "blue.png"])
    expect(page.get_by_text("The server takes 3 at a time: the last 1 were left out.")).to_be_visible()
    for name, colour in (("red.png", "red"), ("lime.png", "green"), ("blue.png", "blue")):
        expect(card(page, name).get_by_role("listitem").first).to_have_text(f"{colour} 100.0 %")
    page.evaluate(
        "data => document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))",
        transfer(page, ("image.png", tangerine())),
    )
    expect(page.locator("article h2").first).to_have_text("image.png")
    expect(card(page, "image.png").get_by_role("listitem").first).to_have_text("red 57.1 %")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("article")).to_have_count(0)
    expect(page.locator("#files")).to_be_focused()


@needs_browser
def test_boxes_lie_on_what_was_found_in_the_upright_picture_at_every_width(visit):
    picture = Image.new("RGB", (800, 400), "white")
    ImageDraw.Draw(picture).rectangle((100, 120, 299, 239), fill="black")  # seen upright: x 160 to 280, y 100 to 300
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    page = visit(model("detection"), viewport={"width": 1200, "height": 900})
    page.locator("#files").set_input_files(upload("turned.jpg", encoded(picture, "JPEG", quality=95, exif=exif)))
    found = card(page, "turned.jpg")
    expect(found.get_by_role("button")).to_have_text(["class 0 98.0 %", "class 3 50.0 %", "class 5 40.0 %"])
    expect(found.locator(".box b")).to_have_text(["0 98.0 %", "3 50.0 %", "5 40.0 %"])
    expect(page.get_by_role("status")).to_have_text("turned.jpg: 3 found, the surest class 0, 98.0 %")
    for width in (1200, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert edges(found) == pytest.approx([160 / 400, 100 / 800, 280 / 400, 300 / 800], abs=0.012)
    frame, beyond = found.locator(".frame").bounding_box(), found.locator(".box").last.bounding_box()
    for side, length in (("x", "width"), ("y", "height")):
        assert beyond[side] + beyond[length] == pytest.approx(frame[side] + frame[length], abs=1)
    # Pointing at a row, or going there with the keyboard, marks its box.
    found.get_by_role("button").nth(1).focus()
    assert found.locator(".box.marked b").all_inner_texts() == ["3 50.0 %"]
    page.locator("#files").set_input_files(upload("white.png", png("white")))
    expect(card(page, "white.png")).to_contain_text("Nothing was found.")


def edges(found: Any) -> list[float]:
    """Left, top, right and bottom of the first box, by its colour's pixels, as shares of the picture."""
    colour = found.locator(".box").first.evaluate("box => getComputedStyle(box).borderLeftColor")
    shot = np.asarray(Image.open(io.BytesIO(found.locator(".frame").screenshot())).convert("RGB"), int)
    rows, columns = np.nonzero(np.abs(shot - np.array(re.findall(r"\d+", colour), int)).max(2) < 30)
    height, width, _ = shot.shape
    return [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]


@needs_browser
def test_each_problem_is_said_in_words_beside_its_picture(visit):
    app = model("classification")
    page = visit(app)
    choose = page.get_by_label("Drop pictures here").set_input_files
    choose([upload("bad.png", b"no picture"), upload("red.png", png("red"))])
    expect(card(page, "bad.png").locator(".bad")).to_have_text(re.compile("^it is not a picture in one of the formats"))
    expect(card(page, "bad.png")).to_contain_text("The browser cannot show this file.")
    expect(card(page, "red.png").get_by_role("listitem").first).to_have_text("red 100.0 %")
    choose(upload("large.png", bytes(SETTINGS.upload_bytes + 50_000)))
    expect(card(page, "large.png")).to_contain_text("It has 0.250 MB, and the server takes at most 0.200 MB")
    app.state.busy = True
    choose(upload("blue.png", png("blue")))
    expect(card(page, "blue.png")).to_contain_text("64 requests are waiting. Try again in 2 seconds.")
    expect(page.get_by_role("status")).to_contain_text("blue.png: 64 requests are waiting.")
    app.state.busy = False
    page.get_by_role("button", name="Try blue.png again").click()
    expect(card(page, "blue.png").get_by_role("listitem").first).to_have_text("blue 100.0 %")
    page.context.set_offline(True)
    choose(upload("lime.png", png("lime")))
    expect(card(page, "lime.png")).to_contain_text("The server did not answer.")
    expect(card(page, "blue.png")).not_to_contain_text("The server did not answer.")


@needs_browser
def test_two_texts_have_their_cosine_and_are_text_alone(visit):
    page = visit(model("embedding", decode_text))
    text = page.get_by_label("Text")
    text.fill("<img src=x onerror=alert(1)> aab")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("article")).to_contain_text("26 components, length ")
    expect(page.get_by_role("blockquote")).to_have_text("<img src=x onerror=alert(1)> aab")
    page.get_by_role("button", name="Clear").click()
    text.fill("aab")
    text.press("Control+Enter")
    expect(page.get_by_role("article")).to_contain_text("26 components, length 2.2361")
    expect(page.get_by_role("article")).to_contain_text("2.0000, 1.0000, 0.0000")
    text.fill("ab")
    text.press("Control+Enter")
    expect(page.get_by_role("listitem")).to_have_text("cosine 0.9487 with “aab”")  # 3 / sqrt(10)
    expect(page.get_by_role("status")).to_have_text("“ab”: cosine 0.9487 with “aab”")


@needs_browser
def test_two_pictures_have_the_cosine_of_their_embeddings(visit):
    page = visit(model("embedding"))
    page.locator("#files").set_input_files([upload("red.png", png("red")), upload("yellow.png", png("yellow"))])
    expect(card(page, "yellow.png").get_by_role("listitem")).to_have_text("cosine 0.7071 with red.png")


@needs_browser
def test_a_model_of_tensors_shows_how_it_is_called(visit):
    page = visit(model("tensor"))
    expect(page.get_by_text("This model takes no pictures and no text")).to_be_visible()
    assert not page.get_by_label("Drop pictures here").is_visible() and not page.get_by_label("Text").is_visible()
    rows = page.get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1).get_by_role("cell")).to_have_text(["image", "input", "FP32", "[−1, 1, −1, −1]"])
    expect(rows.nth(2).get_by_role("cell")).to_have_text(["logits", "output", "FP32", "[−1, 3]"])
    command = shlex.split(page.locator("pre").inner_text())
    assert command[:2] == ["curl", f"{page.url}v2/models/shapes/infer"]
    tensor = {"name": "image", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": [0] * 16}
    assert json.loads(command[command.index("-d") + 1]) == {"inputs": [tensor]}


@needs_browser
def test_phone_dark_mode_keyboard_and_a_prefix_of_a_proxy(visit):
    app = FastAPI()
    app.mount("/shapes", model("classification"))
    page = visit(app, "shapes/", viewport={"width": 390, "height": 800}, color_scheme="dark", reduced_motion="reduce")
    page.keyboard.press("Tab")
    expect(page.locator("#files")).to_be_focused()
    assert page.locator("#zone").evaluate("zone => getComputedStyle(zone).outlineStyle") == "solid"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    page.locator("#files").set_input_files(upload(f"{'long' * 30}.png", tangerine()))
    expect(page.get_by_role("listitem").first).to_have_text("red 57.1 %")
    page.get_by_text("Call it without this page").click()
    expect(page.locator("pre").first).to_have_text(f"curl -F file=@picture.jpg {page.url}predict")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@needs_browser
def test_the_policy_forbids_scripts_that_are_not_the_pages_own(browser):
    with pytest.raises(AssertionError, match="Content Security Policy"), visiting(browser) as visit:
        page = visit(model("classification"))
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'stolen = 1'}))"
        )
        assert page.evaluate("typeof stolen") == "undefined"


@needs_browser
def test_the_documentation_is_drawn_and_calls_the_api_without_any_other_host(visit):
    api, app = FastAPI(title="shapes", docs_url=None), FastAPI()
    api.include_router(docs_router("shapes"))

    @api.get("/health")
    async def health() -> dict[str, bool]:
        return {"live": True}

    app.mount("/prefix", api)
    page = visit(app, "prefix/docs")
    expect(page).to_have_title("shapes: API")
    page.locator(".opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response").first).to_contain_text('"live": true')
    scripts = re.search(r"script-src ([^;]*)", DOCS_HEADERS["Content-Security-Policy"])
    assert scripts and scripts[1] == "'self'"
    assert page.evaluate("performance.getEntriesByType('resource').every(e => e.name.startsWith(location.origin))")


@pytest.mark.parametrize(
    ("name", "kind"), [("mobilenet_v2", "image"), ("face_pnet", "image"), ("minilm", "text"), ("digits_cnn", "none")]
)
def test_what_a_model_takes_is_what_its_decode_gives(name, kind):
    assert upload_kind(load_data(name), load_spec(name)) == kind


def test_what_the_release_says_cannot_end_the_script_that_holds_it():
    name = "</script><script>alert(1)</script>"
    pages = render_page(release_of("classification", name), SETTINGS, "image")
    html = pages["/"][1].decode()
    assert html.count("<script") == 2 and "alert(1)</script>" not in html
    block = re.search(r'<script type="application/json" id="release">(.*?)</script>', html)
    assert block and json.loads(block[1]) == {
        "model": name,
        "variant": "fp32",
        "task": "classification",
        "kind": "image",
        "max_files": 3,
        "upload_bytes": 200_000,
        "shapes": {"image": [1, 1, 4, 4]},
    }


def test_the_page_loads_nothing_from_elsewhere_and_no_more_than_is_served():
    pages = render_page(release_of("classification"), SETTINGS, "image")
    text = "".join(content.decode() for _, content in pages.values()).replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"""https?:|["'(]//""", text) == []
    loaded = re.findall(r'(?:href|src)="(page/[^"]+)"', pages["/"][1].decode())
    assert {f"/{path}" for path in loaded} == set(pages) - {"/"}
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
