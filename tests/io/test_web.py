"""The page that `gpusvm export --to web` writes, opened in a browser where there is one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browser
from PIL import Image, ImageDraw
from sklearn.preprocessing import StandardScaler

from gpusvm import SVC, SVR
from gpusvm.calibration import Calibration
from gpusvm.data import Dataset, load_dataset
from gpusvm.data.digit_form import as_digit
from gpusvm.errors import DataWarning, UsageError
from gpusvm.io import web
from gpusvm.io.web import PAGE_STEPS, render_page, write_page
from gpusvm.model import SVMModel, TableLayout
from gpusvm.preprocess import build_steps
from gpusvm.training import train_model

Points = list[tuple[float, float]]


def circle(n: int = 14) -> Points:
    angle = np.linspace(0, 2 * np.pi, n)
    return list(zip(0.5 + 0.3 * np.sin(angle), 0.5 - 0.4 * np.cos(angle), strict=True))


SHAPES: dict[str, list[Points]] = {
    "zero": [circle()],
    "one": [[(0.5, 0.1), (0.5, 0.9)]],
    "seven": [[(0.25, 0.12), (0.75, 0.12), (0.42, 0.9)]],
    "L": [[(0.3, 0.1), (0.3, 0.9), (0.75, 0.9)]],
    "</script> & <b>": [[(0.5, 0.1), (0.5, 0.9)], [(0.1, 0.5), (0.9, 0.5)]],
}
"""Characters as strokes in a square of side 1. The last is a cross, with a name that tries to end
the page's script."""


def drawn(strokes: list[Points], size: int = 120, width: int = 12) -> np.ndarray:
    """Strokes as a picture, bright on black."""
    picture = Image.new("L", (size, size))
    for points in strokes:
        ImageDraw.Draw(picture).line([(x * size, y * size) for x, y in points], fill=255, width=width, joint="curve")
    return np.asarray(picture)


def shaken(strokes: list[Points], rng: np.random.Generator) -> list[Points]:
    """The same by another hand: slanted, stretched, unsteady."""
    turn = np.eye(2) + rng.normal(0, 0.1, (2, 2))
    return [[tuple(0.5 + turn @ (np.array(p) - 0.5) + rng.normal(0, 0.01, 2)) for p in points] for points in strokes]


def characters(rng: np.random.Generator, n: int = 12, shape=(28, 28), dark: bool = False) -> Dataset:
    images, labels = [], []
    for name, strokes in SHAPES.items():
        for _ in range(n):
            images.append(as_digit(drawn(shaken(strokes, rng), width=int(rng.integers(9, 18))), shape))
            labels.append(name)
    pixels = np.stack(images)
    return Dataset(255 - pixels if dark else pixels, np.array(labels), "characters", "train", "")


def trained(data: Dataset, *, binarize: bool = False, deskew: bool = False, **parameters: object) -> SVMModel:
    steps = build_steps(data.image_shape, binarize=binarize, deskew=deskew)
    return train_model(SVC(**{"C": 10, "gamma": 0.02, "backend": "sklearn", **parameters}), data, steps)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sheet() -> Dataset:
    return characters(np.random.default_rng(1))


@pytest.fixture(scope="module")
def model(sheet: Dataset) -> SVMModel:
    return trained(sheet, probability=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        running.look()
        yield running


@pytest.fixture
def page(chromium: Browser, model: SVMModel, tmp_path: Path) -> Iterator[Browser]:
    """The page of `model`, open; at the end nothing has gone wrong on it, and nothing has left
    it."""
    yield opened(chromium, model, tmp_path)
    assert chromium.complaints == []
    assert [url for url in chromium.requests if not url.startswith(("file:", "blob:"))] == []


def opened(chromium: Browser, model: SVMModel, folder: Path) -> Browser:
    path = folder / "page.html"
    write_page(model, path, title="Test & <try>")
    chromium.open(path)
    chromium.run("ready")
    return chromium


def send(page: Browser, name: str, array: np.ndarray) -> None:
    """Put an array of bytes into the page, under this name."""
    text = base64.b64encode(array.tobytes()).decode()
    page.run(f"void (window.{name} = Uint8Array.from(atob('{text}'), (c) => c.charCodeAt(0)))")


def answers(page: Browser, images: np.ndarray) -> dict[str, list]:
    """What the page's own functions say of images (n, height, width) uint8."""
    send(page, "images", images)
    return page.run(f"""(() => {{
      const found = {{ label: [], decisions: [], probabilities: [] }};
      for (let i = 0; i < {len(images)}; i++) {{
        const answer = svm.answer(images.subarray(i * {images[0].size}, (i + 1) * {images[0].size}));
        found.label.push(answer.label);
        found.decisions.push(Array.from(answer.decisions));
        found.probabilities.push(answer.probabilities);
      }}
      return found;
    }})()""")


def label(page: Browser) -> str:
    return page.run("element('label').textContent")


def words(page: Browser) -> str:
    return page.run("element('words').innerText")


def draw(page: Browser, strokes: list[Points], *, size: float = 0.8, at=(0.1, 0.1), touch: bool = False) -> None:
    """Draw with real input, in a square of `size` at `at`, in parts of the canvas."""
    left, top, side, _ = page.box("#canvas")
    for points in strokes:
        page.drag([(left + (at[0] + size * x) * side, top + (at[1] + size * y) * side) for x, y in points], touch=touch)


# -- the same as gpusvm predict -------------------------------------------------------------------

MODELS = {
    "rbf": {"probability": True},
    "linear": {"kernel": "linear"},
    "poly": {"kernel": "poly", "degree": 3, "coef0": 1.0},
    "sigmoid": {"kernel": "sigmoid", "gamma": 0.001, "coef0": 0.1},
    "binarised": {"binarize": True, "probability": True},
    "deskewed": {"deskew": True},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_page_decides_as_the_model_does(chromium, sheet, tmp_path, rng, name):
    model = trained(sheet, **MODELS[name])  # type: ignore[arg-type]
    page = opened(chromium, model, tmp_path)
    images = np.concatenate([characters(rng, 6).images, rng.integers(0, 256, (8, 28, 28), dtype=np.uint8)])
    X = model.preprocess(images).astype(np.float64)
    found, decisions = answers(page, images), model.pair_decisions(X, dtype=np.float64)
    np.testing.assert_allclose(found["decisions"], decisions, rtol=1e-5, atol=1e-5)
    assert found["label"] == model.predict(X).tolist()
    if model.calibration is not None:
        np.testing.assert_allclose(found["probabilities"], model.probabilities(decisions), rtol=1e-4, atol=1e-6)


def test_two_classes_of_oblong_pictures_that_are_dark_on_light(chromium, tmp_path, rng):
    data = characters(rng, 10, shape=(24, 16), dark=True)
    two = np.isin(data.labels, ["one", "L"])
    data = replace(data, images=data.images[two], labels=data.labels[two])
    model = trained(data)
    page = opened(chromium, model, tmp_path)
    assert page.run("[model.dark_ink, model.shape, model.box]") == [True, [24, 16], [17, 11]]
    found = answers(page, data.images)
    assert found["label"] == model.predict(model.preprocess(data.images)).tolist()
    draw(page, SHAPES["L"])
    assert label(page) == "L" and words(page).startswith("1 of 1 vote")


def test_digits_that_fill_their_frame(chromium, tmp_path):
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    model = trained(train, gamma=0.2)
    page = opened(chromium, model, tmp_path)
    assert page.run("model.box") == [8, 8]
    assert answers(page, test.images)["label"] == model.predict(model.preprocess(test.images)).astype(str).tolist()


def test_the_winner_of_the_votes_is_the_most_probable(page, model, rng):
    send(page, "images", rng.integers(0, 256, (1, 28, 28), dtype=np.uint8))
    decisions = rng.normal(0, 1.5, (200, len(model.intercept)))
    found = page.run(f"""{json.dumps(decisions.tolist())}.map((decisions) => {{
      const votes = svm.votes(decisions), winner = votes.indexOf(Math.max(...votes));
      return [winner, svm.probabilities(decisions, winner)];
    }})""")
    assert [winner for winner, _ in found] == model.vote(decisions).tolist()
    np.testing.assert_allclose([p for _, p in found], model.probabilities(decisions), rtol=1e-9, atol=1e-12)


def test_a_drawing_is_brought_into_form_as_python_does(page, rng):
    for i in range(12):
        height, width = rng.integers(1, 90, 2)
        picture = (rng.integers(0, 256, (height, width)) // rng.integers(1, 5)).astype(np.uint8)
        if i % 2:
            picture = drawn(shaken(SHAPES["seven"], rng), int(rng.integers(30, 200)))[: 20 + i * 8]
        if i % 3 == 0:
            picture = 255 - picture
        if i % 4 == 0:  # a photograph, lit from one side
            light = np.linspace(0, 60, 130)[:, None] + np.linspace(90, 130, 110)
            picture = (light + rng.integers(0, 9, (130, 110))).astype(np.uint8)
            picture[20:90, 30:38] = rng.integers(0, 40)
        shape, box = [((28, 28), (20, 20)), ((17, 30), (15, 22))][i % 2]
        send(page, "grey", picture)
        size = f"{{grey, height: {picture.shape[0]}, width: {picture.shape[1]}}}"
        found = page.run(f"Array.from(asDigit({size}, {list(shape)}, {list(box)}))")
        np.testing.assert_array_equal(np.reshape(found, shape), as_digit(picture, shape, box))


def test_python_knows_the_steps_that_the_page_does(page):
    assert set(page.run("Object.keys(STEPS)")) == set(PAGE_STEPS)


@pytest.mark.mnist
def test_a_thousand_of_mnist(chromium, tmp_path):
    train, test = load_dataset("mnist", "train", limit=1000), load_dataset("mnist", "test", limit=1000)
    model = trained(train)
    page = opened(chromium, model, tmp_path)
    expected = model.predict(model.preprocess(test.images)).astype(str).tolist()
    assert answers(page, test.images)["label"] == expected


# -- drawing --------------------------------------------------------------------------------------


def test_strokes_lead_to_a_class(page):
    for name, strokes in SHAPES.items():
        draw(page, strokes)
        assert label(page) == name
        assert "Probability" in words(page)
        assert page.run("element('spoken').textContent").startswith(name)
        page.press("Escape")


def test_a_finger_draws_too(page):
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    draw(page, SHAPES["seven"], touch=True)
    page.call("Emulation.setTouchEmulationEnabled", enabled=False)
    assert label(page) == "seven"


def test_place_and_size_make_no_difference(page):
    for name, strokes in SHAPES.items():
        for size, at in ((0.98, (0.01, 0.01)), (0.3, (0.68, 0.65)), (0.15, (0.02, 0.8))):
            draw(page, strokes, size=size, at=at)
            assert label(page) == name, (size, at)
            page.press("Escape")


def test_an_empty_canvas_has_no_class(page):
    def is_empty() -> bool:
        return label(page) == "" and page.run("element('details').hidden") and "Nothing drawn yet" in words(page)

    assert is_empty() and not page.run("element('hint').hidden")
    draw(page, SHAPES["one"])
    assert not is_empty() and page.run("element('hint').hidden")
    page.click("#clear")
    assert is_empty() and page.run("element('clear').disabled")


def test_a_dot_is_no_character(page):
    draw(page, [[(0.5, 0.5), (0.51, 0.5)]])
    assert label(page) == "" and "too small" in words(page)


def test_the_keyboard_undoes_and_clears(page):
    horizontal, vertical = SHAPES["</script> & <b>"][1], SHAPES["one"][0]
    draw(page, [vertical])
    draw(page, [horizontal])
    assert label(page) == "</script> & <b>"
    page.press("z", control=True)
    assert label(page) == "one"
    page.press("Escape")
    assert label(page) == ""
    page.press("z", control=True)
    assert label(page) == "one"
    page.press("z", control=True)
    assert label(page) == "" and page.run("element('undo').disabled")


def test_the_keyboard_alone_can_draw(page):
    page.press("Tab")
    assert page.run("document.activeElement.id") == "canvas"
    for _ in range(10):
        page.press("ArrowUp")
    page.press(" ", text=" ")
    for _ in range(20):
        page.press("ArrowDown")
    page.press(" ", text=" ")
    assert label(page) == "one"
    page.press("Tab")
    assert page.run("document.activeElement.id") == "undo"


def test_what_can_be_focused_shows_it(page):
    for selector in ("#canvas", "#undo", "#choose"):
        draw(page, SHAPES["one"])
        page.run(f"document.querySelector('{selector}').focus({{focusVisible: true}})")
        assert page.run(f"parseFloat(getComputedStyle(document.querySelector('{selector}')).outlineWidth)") >= 2


# -- pictures -------------------------------------------------------------------------------------


def test_a_picture_is_recognised_light_or_dark_or_transparent(page, tmp_path):
    ink = np.pad(drawn(SHAPES["seven"], 200), ((30, 200), (90, 10)))
    blue = np.dstack([np.zeros_like(ink), np.zeros_like(ink), np.full_like(ink, 160), ink])
    for i, picture in enumerate((ink, 255 - ink, blue)):
        path = tmp_path / f"{i}.png"
        Image.fromarray(picture).save(path)
        page.choose_file("#file", path)
        page.wait(f"history.length === {i + 1}")
        assert label(page) == "seven"
    draw(page, SHAPES["zero"])  # which takes the picture's place
    assert label(page) == "zero"
    page.press("z", control=True)
    assert label(page) == "seven"


def test_a_picture_can_be_dropped_and_pasted(page, tmp_path):
    Image.fromarray(drawn(SHAPES["L"])).save(tmp_path / "L.png")
    text = base64.b64encode((tmp_path / "L.png").read_bytes()).decode()
    for event, where in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.run(f"""(() => {{
          const bytes = Uint8Array.from(atob("{text}"), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "L.png", {{ type: "image/png" }}));
          const kind = "{event}" === "drop" ? DragEvent : ClipboardEvent;
          document.dispatchEvent(new kind("{event}", {{ {where}: transfer, cancelable: true }}));
        }})()""")
        page.wait("element('label').textContent === 'L'")
        page.press("Escape")


def test_what_is_no_picture_is_said(page, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    page.choose_file("#file", tmp_path / "no.png")
    page.wait("element('words').className === 'fault'")
    assert "no picture" in words(page)
    Image.new("L", (30, 30), 200).save(tmp_path / "blank.png")
    page.choose_file("#file", tmp_path / "blank.png")
    page.wait("element('words').textContent.includes('one colour')")
    assert label(page) == ""


# -- what is shown --------------------------------------------------------------------------------


def test_bars_and_speakers(page, model):
    draw(page, SHAPES["zero"])
    bars = page.run(
        "[...document.querySelectorAll('#bars li')].map((li) => [li.className, li.children[0].textContent])"
    )
    assert [name for _, name in bars] == model.classes.tolist()
    assert [name for kind, name in bars if kind == "first"] == ["zero"]
    speakers = page.run("[...document.querySelectorAll('.speakers li')].map((li) => li.innerText.split('\\n'))")
    for name, weight in speakers:
        assert (name == "zero") == (weight[0] == "+")
    assert {weight[0] for _, weight in speakers} == {"+", "−"}


def test_speakers_are_those_of_most_weight(page, model, rng):
    image = as_digit(drawn(SHAPES["seven"]))
    send(page, "image", image)
    found = page.run("svm.answer(image, 3)")
    winner = found["winner"]
    values = model.kernel(model.preprocess(image[None]).astype(np.float64), model.support_vectors.astype(np.float64))[0]
    weights = np.zeros(model.n_support_vectors)
    slices = list(model.class_slices())
    for i, j in model.pairs:
        if winner in (i, j):
            sign = 1 if winner == i else -1
            weights[slices[i]] += sign * model.dual_coef[j - 1, slices[i]]
            weights[slices[j]] += sign * model.dual_coef[i, slices[j]]
    order = np.argsort(-weights * values)
    assert [one["vector"] for one in found["speakers"]["for"]] == order[:3].tolist()
    assert [one["vector"] for one in found["speakers"]["against"]] == order[: -3 - 1 : -1].tolist()
    np.testing.assert_allclose(
        [one["weight"] for one in found["speakers"]["for"]], (weights * values)[order[:3]], rtol=1e-5
    )


def test_many_classes_show_the_first_ten(chromium, tmp_path, rng):
    centres = rng.integers(0, 256, (15, 6, 6))
    images = np.repeat(centres, 3, axis=0).astype(np.uint8)
    model = trained(Dataset(images, np.repeat(np.arange(15), 3), "many", "train", ""))
    page = opened(chromium, model, tmp_path)
    draw(page, SHAPES["zero"])
    shares = page.run("[...document.querySelectorAll('#bars i')].map((i) => parseFloat(i.style.width))")
    assert len(shares) == 10 and shares[1:] == sorted(shares[1:], reverse=True)
    assert label(page) == page.run("document.querySelector('#bars .first .name').textContent")


def contrast(first: list[float], second: list[float]) -> float:
    """Between two colours, as WCAG defines it."""

    def luminance(colour: list[float]) -> float:
        parts = [c / 255 for c in colour[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_is_readable_and_fits(page, dark):
    for width in (1280, 390):
        page.look(width=width, dark=dark)
        draw(page, SHAPES["zero"])
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
    found = page.run("""[...document.querySelectorAll("h1, h2, p, small, b, span, button:enabled, output, kbd")]
      .filter((e) => e.innerText?.trim() && e.getClientRects().length)
      .map((e) => {
        let under = e;
        while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
        const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
        return [e.innerText, numbers(getComputedStyle(e).color), numbers(getComputedStyle(under).backgroundColor)];
      })""")
    page.look()
    assert len(found) > 20
    for text, colour, background in found:
        assert contrast(colour, background) >= 4.5, text


# -- without a browser ----------------------------------------------------------------------------


def test_a_page_is_one_file_that_loads_nothing(model):
    text = render_page(model, title="Test & <try>")
    assert "Test &amp; &lt;try&gt;" in text and "{{" not in text
    assert "http:" not in text and "https:" not in text and "src=" not in text and "import(" not in text
    assert "default-src 'none'" in text


def test_models_that_a_page_cannot_hold_are_refused_in_a_line(model, rng):
    X, y = rng.normal(size=(30, 4)), rng.integers(0, 2, 30)
    table = SVC(backend="sklearn").fit(X, y).model_
    refused = {
        "trained on a table": replace(table, table=TableLayout()),
        "does not say what size": table,
        "a model of regression": SVR(backend="sklearn").fit(X, X[:, 0]).model_,
        "precomputed": replace(SVC(kernel="precomputed", backend="sklearn").fit(X @ X.T, y).model_, image_shape=(5, 6)),
        "cannot compute the step standard_scaler": replace(model, preprocessing=(StandardScaler().fit(np.eye(784)),)),
    }
    for reason, one in refused.items():
        with pytest.raises(UsageError, match=reason) as found:
            render_page(one)
        assert "\n" not in str(found.value)


def test_a_page_too_large_is_refused(model, monkeypatch):
    monkeypatch.setattr(web, "MOST_BYTES", 10_000)
    with pytest.raises(UsageError, match="browsers are slow to open"):
        render_page(model)


def test_libsvms_probabilities_are_left_out(model):
    found = model.calibration
    libsvm = replace(model, calibration=Calibration(found.probA, found.probB))
    with pytest.warns(DataWarning, match="this one shows votes"):
        assert '"calibration":null' in render_page(libsvm)


def test_support_vectors_of_bytes_stay_bytes(sheet, model):
    """Deskewed ones are not: they are kept as they are, in float32."""
    assert '"vectors":"uint8"' in render_page(model)
    assert '"vectors":"float32"' in render_page(trained(sheet, deskew=True))
    with_raw = replace(model, preprocessing=(), support_vectors=np.rint(model.support_vectors * 255))
    assert '"vectors":"uint8","unit":1.0' in render_page(with_raw)
