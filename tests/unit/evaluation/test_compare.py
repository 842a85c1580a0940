"""compare.html: in text, and voted on by keys in headless Chromium."""

import base64
import io
import re
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service.artifacts.kinds.measurements import Measured, Measurements
from service.artifacts.kinds.votes import Votes
from service.evaluation.blind import VOTES, lora_is_left, order_of_pairs, preferences
from service.evaluation.compare import MOST_PAIRS, Pairs, comparison_page
from service.evaluation.criteria.votes import BLIND_VOTES
from service.evaluation.sample import Sides
from service.settings.evaluate import EvaluateSettings
from tests.chromium import opened

VERSION = "0123456789abcdef"
PROMPTS = [
    f"8-bit illustration, a {thing}" for thing in ("boat", "<b>cat</b>", "dog", "fox", "gem", "key", "owl", "pear")
]
BASE, LORA = (200, 30, 30), (30, 200, 30)
"""In the pictures of these tests each side has a colour, by which a person could tell them."""


def pairs(seeds: int = 1, size: int = 16, prompts: list[str] = PROMPTS) -> Pairs:
    of = [prompt for prompt in prompts for _ in range(seeds)]
    sides = ([Image.new("RGB", (size, size), colour) for _ in of] for colour in (BASE, LORA))
    return Pairs("runs/demo/images/0123", VERSION, of, Sides(*sides))


def embedded(html: str) -> list[Image.Image]:
    found = re.findall(r'alt="(?:Left|Right) picture" src="data:image/(?:png|jpeg);base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def test_the_page_holds_each_pair_and_nothing_that_tells_base_from_lora_but_the_pictures() -> None:
    html = comparison_page(pairs())
    shown = [image.convert("RGB").getpixel((0, 0)) for image in embedded(html)]
    left, right = shown[::2], shown[1::2]
    order = order_of_pairs(VERSION, PROMPTS)
    assert left == [LORA if lora_is_left(VERSION, picture) else BASE for picture in order]
    assert right == [BASE if lora_is_left(VERSION, picture) else LORA for picture in order]
    assert len(set(left)) == 2
    assert not re.search(r"\b(base|lora)\b", re.sub(r'src="[^"]*"|base64', "", html).lower())
    assert html == comparison_page(pairs())


def test_what_a_drawn_file_tells_of_itself_is_not_in_the_page(tmp_path: Path) -> None:
    told = PngInfo()
    told.add_text("sdlora", '{"lora": "runs/demo/lora"}')
    Image.new("RGB", (16, 16), LORA).save(tmp_path / "drawn.png", pnginfo=told)
    drawn = [Image.open(tmp_path / "drawn.png")] * len(PROMPTS)
    html = comparison_page(Pairs("i", VERSION, PROMPTS, Sides(drawn, drawn)))
    assert all("sdlora" not in image.info for image in embedded(html))


def test_large_pictures_and_many_of_them_stay_a_page_that_a_browser_opens() -> None:
    noise = Random(0).randbytes(768 * 768 * 3)
    large = [Image.frombytes("RGB", (768, 768), noise)] * 2
    html = comparison_page(Pairs("i", VERSION, PROMPTS[:2], Sides(large, large)))
    assert {(image.format, image.size) for image in embedded(html)} == {("JPEG", (512, 512))}
    assert len(embedded(comparison_page(pairs(seeds=20)))) == 2 * MOST_PAIRS


def test_a_prompt_from_the_web_stays_text_and_the_policy_names_the_one_script() -> None:
    html = comparison_page(pairs(prompts=["<script>alert(1)</script>", 'a "quoted" <img src=x>']))
    assert html.count("<script>") == 1
    assert "<img src=x>" not in html
    assert re.search(r"default-src 'none';[^\"]*script-src 'sha256-[A-Za-z0-9+/]+='\"", html)
    assert not re.search(r"https?://|@import|url\(", html)


def test_whoever_votes_by_keys_for_the_pictures_of_the_lora_downloads_votes_that_promote_it(tmp_path: Path) -> None:
    (tmp_path / "compare.html").write_text(comparison_page(pairs()), encoding="utf-8")
    order = order_of_pairs(VERSION, PROMPTS)
    with opened(tmp_path / "compare.html", tmp_path) as page:
        assert page.value("document.querySelector('#result').disabled") is True, "there is nothing to download yet"
        for number, picture in enumerate(order):
            assert page.value("document.querySelector('#status').textContent") == f"Pair {number + 1} of 8"
            visible = "[...document.querySelectorAll('.pair')].filter(one => one.offsetHeight).map(one => +one.dataset.picture)"
            assert page.value(visible) == [picture]
            if number == 1:
                page.press("ArrowDown")  # and back again: what was chosen by mistake does not count
                page.press("Backspace")
            lora = "ArrowLeft" if lora_is_left(VERSION, picture) else "ArrowRight"
            page.press("ArrowDown" if number == 0 else lora)
        assert "All 8 pairs" in page.value("document.querySelector('#status').textContent")
        assert page.value("document.querySelector('progress').value") == 8
        assert page.value("document.activeElement.id") == "result"
        page.press("Enter")
        page.wait("Browser.downloadProgress", state="completed")
        assert page.complaints() == []
        assert [address for address in page.requests() if not address.startswith(("file:", "data:", "blob:"))] == []
    file = tmp_path / f"votes-{VERSION[:12]}.json"
    votes = Votes.from_bytes(file.read_bytes(), file.name)
    assert [vote.picture for vote in votes.votes] == order
    chosen = preferences({file.name: votes}, VERSION, len(PROMPTS))
    assert chosen[:, 1].tolist() == [0] + [1] * 7
    measured = Measurements(Measured(images="i", prompts=PROMPTS, variations=1, held_out=[]), {VOTES: np.array(chosen)})
    assert BLIND_VOTES.examine(measured, EvaluateSettings()).outcome == "promote"


def test_without_the_keyboard_there_are_buttons_that_say_what_they_choose(tmp_path: Path) -> None:
    (tmp_path / "compare.html").write_text(comparison_page(pairs()), encoding="utf-8")
    with opened(tmp_path / "compare.html", tmp_path) as page:
        nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
        named = {(node["role"]["value"], node["name"]["value"]) for node in nodes if "name" in node and "role" in node}
        assert named >= {
            ("button", "← Left"),
            ("button", "↓ No difference"),
            ("button", "Right →"),
            ("progressbar", "Pairs voted on"),
            ("image", "Left picture"),
            ("image", "Right picture"),
        }
        page.value("document.querySelector('[data-side=right]').click()")
        page.value("document.querySelector('[data-side=left]').click()")
        page.value("document.querySelector('#result').click()")
        page.wait("Browser.downloadProgress", state="completed")
    votes = Votes.from_bytes((tmp_path / f"votes-{VERSION[:12]}.json").read_bytes(), "votes")
    assert [vote.chosen for vote in votes.votes] == ["right", "left"]
