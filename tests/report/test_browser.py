"""How a browser shows pages, and that nothing in them acts."""

import re

import numpy as np
import pytest
from report_folders import write_run, write_study

from cae.report.report import REPORT_FILE


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser of its own profile; tests are skipped where there is none."""
    pytest.importorskip("fcntl", reason="needs the pipes of Unix")
    from browser import Browser, find_browser

    executable = find_browser()
    if executable is None:
        pytest.skip("needs a browser: chromium, google-chrome or microsoft-edge")
    browser = Browser(executable, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def too_wide(browser):
    """Elements that stick out of the window and are not inside a box that scrolls."""
    return browser.evaluate(
        "[...document.querySelectorAll('body *')]"
        ".filter(e => !e.parentElement.closest('.scroll, pre'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)"
        ".map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"
    )


@pytest.fixture
def wide(tmp_path):
    """A study with a long name, and many columns of what differs."""
    folder = tmp_path / "wide"
    name = "a_configuration_whose_name_says_more_than_anybody_wants_to_know"
    changes = {"l2": 0.125, "noise": 0.5, "validation_split": 0.25, "learning_rate_schedule": None}
    runs = [
        (name, write_run(folder / name, "autoencoder", 0.1, name=name)),
        ("b", write_run(folder / "b", "autoencoder", 0.2, name="b", batch_size=128, **changes)),
    ]
    return write_study(folder, runs)


def test_a_phone_shows_every_value(browser, wide, report):
    """All cells, and all figures, from side to side."""
    report(wide)
    browser.open(wide / REPORT_FILE, 390)
    places = browser.evaluate(
        "[...document.querySelectorAll('details')].forEach(d => d.open = true),"
        "[...document.querySelectorAll('td, tbody th, img')].map(e => e.getBoundingClientRect())"
        ".map(place => [place.left, place.right, place.height])"
    )
    assert len(places) > 50
    assert all(0 <= left < right <= 390 and height > 0 for left, right, height in places)


def test_paper_breaks_no_heading_of_a_column(browser, wide, report):
    """On A4 with margins of 15 mm."""
    report(wide)
    browser.open(wide / REPORT_FILE, 680)
    browser.send("Emulation.setEmulatedMedia", media="print")
    lines = browser.evaluate(
        "[...document.querySelectorAll('thead th')].filter(h => h.offsetWidth).map(heading => {"
        " const range = document.createRange(), text = heading.firstChild;"
        " return [...text.data.matchAll(/\\S+/g)].map(word => {"
        "  range.setStart(text, word.index); range.setEnd(text, word.index + word[0].length);"
        "  return range.getClientRects().length })}).flat()"
    )
    assert len(lines) > 20
    assert set(lines) == {1}


def test_a_page_fits_its_window(browser, autoencoders, report):
    """Wide tables scroll in their boxes; no request, no complaint, every picture is there."""
    report(autoencoders)
    path = autoencoders / REPORT_FILE
    for width in (360, 768, 1280):
        browser.open(path, width)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert too_wide(browser) == []
        assert browser.requests == [path.as_uri()]
        assert browser.complaints == []
        loaded = browser.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
        assert loaded == [True] * 5
    # The style is in force: the policy lets it through.
    aligned = "getComputedStyle(document.querySelector('th.number')).textAlign"
    assert browser.evaluate(aligned) == "right"


def test_names_that_are_markup_do_nothing_in_a_browser(browser, hostile, report):
    report(hostile)
    browser.open(hostile / REPORT_FILE, 360)
    assert browser.evaluate("document.title") == "Study hostile"
    assert browser.complaints == []
    assert browser.requests == [(hostile / REPORT_FILE).as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_policy_stops_what_the_template_would_let_through(browser, classifier_run, report):
    """Had a name become markup after all, it could neither act nor call anybody."""
    report(classifier_run)
    path = classifier_run / REPORT_FILE
    attack = "<script>document.title='owned'</script><img src='http://127.0.0.1:9/x.png'>"
    path.write_text(path.read_text().replace("<main>", f"{attack}<main>"))
    browser.open(path, 800)
    assert browser.evaluate("document.title") != "owned"
    assert len(browser.complaints) == 2
    assert all("Content Security Policy" in text for text in browser.complaints)


def test_a_page_prints(browser, autoencoders, report):
    """On white paper, also where the screen is dark."""
    report(autoencoders)
    browser.open(autoencoders / REPORT_FILE, 1280, dark=True)
    look = "getComputedStyle(document.body).backgroundColor"
    assert browser.evaluate(look) != "rgb(255, 255, 255)"
    printed = browser.print()
    assert printed.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 2 <= pages <= 8
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.send("Emulation.setEmulatedMedia", media="print", features=[dark])
    assert browser.evaluate(look) == "rgb(255, 255, 255)"


@pytest.mark.slow
def test_the_shipped_study_takes_less_than_12_pages(browser, tmp_path, report):
    """24 autoencoders and 15 classifiers are screened, 3 and 5 trained with three seeds."""
    for kind, study, count, seeds in (
        ("autoencoder", "encoders-screening", 24, 1),
        ("autoencoder", "encoders", 3, 3),
        ("classifier", "heads-screening", 15, 1),
        ("classifier", "heads", 5, 3),
    ):
        folder = tmp_path / study
        runs = [
            (name, write_run(folder / f"{name}-{seed}", kind, 1 / n, seed, name, l2=1 / n))
            for n, name in enumerate([f"{kind}_medium_l2_{n}" for n in range(count)], 2)
            for seed in range(seeds)
        ]
        metric = {"autoencoder": "val_mse", "classifier": "val_accuracy"}[kind]
        write_study(folder, runs, metric=metric)
    report(tmp_path)
    browser.open(tmp_path / REPORT_FILE, 1280)
    assert len(re.findall(rb"/Type\s*/Page\b", browser.print())) < 12


def test_words_can_be_read(browser, classifier_run, report):
    """WCAG 2.2 asks for a contrast of 4.5 between text and what is behind it, in both schemes."""
    report(classifier_run)
    for dark in (False, True):
        browser.open(classifier_run / REPORT_FILE, 1280, dark=dark)
        found = browser.evaluate(
            "[...document.querySelectorAll('h1, p, dt, dd, a, th, td, code, figcaption, .mark')]"
            ".map(e => { let b = e; const clear = 'rgba(0, 0, 0, 0)';"
            " while (getComputedStyle(b).backgroundColor === clear) b = b.parentElement;"
            " return [getComputedStyle(e).color, getComputedStyle(b).backgroundColor] })"
        )
        assert len(found) > 50
        for colors in {tuple(pair) for pair in found}:
            assert contrast(*colors) >= 4.5, colors


def contrast(*css_colors):
    """The ratio of two colours' relative luminances, https://www.w3.org/TR/WCAG22/."""

    def luminance(color):
        channels = np.array(re.findall(r"\d+", color)[:3], float) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ (0.2126, 0.7152, 0.0722)

    low, high = sorted(map(luminance, css_colors))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.slow
def test_pages_of_real_runs(browser, trained_autoencoder, trained_classifier, report, capsys):
    """What the programs leave has all that a page needs."""
    curves, drawn = ["Loss", "Mean"], ["Images", "Filters", "Encodings"]
    answers = ["Encodings", "Misclassified", "Correctly", "Points below", "Loss", "Accuracy"]
    for trained, pictures in ((trained_autoencoder, drawn + curves), (trained_classifier, answers)):
        descriptions = [image["alt"] for image in report(trained.run).images]
        for picture in pictures:
            assert any(text.startswith(picture) for text in descriptions)
        browser.open(trained.run / REPORT_FILE, 360)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
        assert browser.complaints == []
        assert browser.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
