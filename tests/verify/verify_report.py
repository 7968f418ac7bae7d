"""The thorough tier's check of the page that `evaluate --report` writes."""

import html
import re

from browser import Browser, Proxy
from shell import COMMAND, KEPT, run

LEAK = "http://leak.example/pixel.png"


def report_in_a_browser(folder):
    """`evaluate --report` in Chromium: whole, readable at any width, and it asks for nothing."""
    settings = ["crop=49,49", "channels=8", "batch_size=4", "train_images=8", "val_images=2"]
    run(*COMMAND, "train", "scenes_tiny", "--out", folder, "--set", *settings, "epochs=1")
    evaluate = [*COMMAND, "evaluate", folder / "best.keras", "--dataset", "scenes"]
    said = run(*evaluate, "--report", folder / "report")
    page = folder / "report" / "index.html"
    assert said.endswith(f"look at {page}\n"), said
    text = page.read_text()
    # Pages that do ask, as controls: the browser must be seen to ask, and the policy to stop it.
    asking = text.replace("</main>", f'<img src="{LEAK}" alt=""></main>')
    policy = re.search("<meta http-equiv=.*?>", text, re.DOTALL)[0]
    pages = {"report": text, "many": page_of_many_classes()}
    pages |= {"stopped": asking, "open": asking.replace(policy, "")}
    views = 0
    with Proxy() as proxy, Browser(folder / "profile", proxy.port) as browser:
        for name, content in pages.items():
            file = folder / f"{name}.html"
            file.write_text(content)
            controls = name in ("stopped", "open")
            for width in (1280, 390):
                found, picture = browser.look(file, width)
                asked = [url for url in found["requests"] if not url.startswith("data:")]
                if controls:
                    assert asked == [file.as_uri(), LEAK] and found["problems"], (name, found)
                    break
                assert asked == [file.as_uri()] and not found["problems"], (name, found)
                title = html.unescape(re.search("<title>(.*?)</title>", content)[1])
                assert found["title"] == title, (name, found["title"])
                assert found["images"] == content.count("<img ") >= 48, (name, found["images"])
                assert not found["broken"] and not found["scripts"], (name, found)
                assert found["wide"] <= width, f"{name} at {width}: {found['wide']} pixels wide"
                assert not found["faint"], (name, width, found["faint"])
                shot = KEPT / f"{name}_{width}.png"
                shot.parent.mkdir(exist_ok=True)
                shot.write_bytes(picture)
                views += 1
            # A proxy hears of everything that would leave the machine, by whatever way.
            assert proxy.asked() == ([LEAK] if name == "open" else []), (name, proxy.asked())
        return {"views": views, "browser": browser.version, "page_bytes": len(text)}


def page_of_many_classes():
    """A report of 150 classes, whose names try to get out of the page."""
    import numpy as np

    from keras_pspnet.labels import LabelSet
    from keras_pspnet.scoring.metrics import evaluate
    from keras_pspnet.scoring.report import Report

    attack = f'<img src="{LEAK}"><script src={LEAK}></script><b>&"'
    labels = LabelSet(tuple(f"{attack if n % 7 == 0 else 'thing'} {n}" for n in range(150)))
    generator, examples = np.random.default_rng(0), []
    for number in range(14):
        image, mask = (
            generator.integers(0, 256, (6, 8, 3), np.uint8),
            generator.integers(150, size=(6, 8)),
        )
        image, mask = (array.repeat(50, 0).repeat(50, 1) for array in (image, mask))
        examples.append((f"folder/{attack.replace('/', '')}{number}.png", image, mask))
    masks = {image.tobytes(): mask for _, image, mask in examples}
    guess = lambda image: np.roll(masks[image.tobytes()], generator.integers(40), 1)  # noqa: E731
    report = Report(labels)
    scores = evaluate(guess, examples, labels, on_picture=report.add)
    about = {"model": attack, "dataset": "folder", "split": "val", "command": attack}
    return report.page(scores, **about).decode()
