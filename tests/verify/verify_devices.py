"""The thorough tier's checks of exported files in the runtimes that devices have."""

import base64
import functools
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from browser import Browser, Proxy
from shell import COMMAND, KEPT, ROOT, run

FORMATS = ("float32", "float16", "dynamic", "int8")
PICTURES = 3


@functools.cache
def exported():
    """A trained network's files, both kinds, with pictures and Python's class maps."""
    folder = Path(tempfile.mkdtemp(prefix="exported-"))
    run(*COMMAND, "train", "scenes_tiny", "--out", folder / "run")
    for output in ("classes", "logits", "probabilities"):
        formats = ",".join((*FORMATS, "int16") if output == "classes" else FORMATS)
        run(
            *(*COMMAND, "export", folder / "run" / "best.keras", "--out", folder / output),
            *("--formats", formats, "--output", output),
        )
    run(sys.executable, "-c", DRAW, folder, str(PICTURES))
    return folder


DRAW = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from keras_pspnet import load_model, scenes
folder = Path(sys.argv[1])
images = [scenes.scene(i, split="val", size=(97, 97))[0] for i in range(int(sys.argv[2]))]
for index, image in enumerate(images):
    Image.fromarray(image).save(folder / f"{index}.png")
for file in folder.glob("*/pspnet_*.tflite"):
    found = load_model(file)(np.stack(images))
    np.save(file.with_suffix(".npy"), found if found.ndim == 3 else found.argmax(-1))
"""


def environment(folder, *packages):
    """A Python with these packages and nothing of ours."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", *packages)
    return python


def in_tflite_runtime(folder):
    """export/on_device/segment.py with tflite-runtime 2.14 and numpy 1: every format."""
    from PIL import Image

    packages = ("tflite-runtime==2.14.0", "numpy<2", "pillow")
    python = environment(folder / "venv", *packages)
    source, result = exported(), {}
    for name in (*FORMATS, "int16"):
        file = source / "classes" / f"pspnet_{name}.tflite"
        pictures = [source / f"{index}.png" for index in range(PICTURES)]
        program = ROOT / "export" / "on_device" / "segment.py"
        run(python, program, file, *pictures, "--out", folder / name)
        maps = [
            np.asarray(Image.open(folder / name / f"{index}_classes.png"))
            for index in range(PICTURES)
        ]
        result[name] = float((np.load(file.with_suffix(".npy")) == np.stack(maps)).mean())
    assert min(result["float32"], result["float16"]) >= 0.999, result
    # Its quantized kernels round in other places than XNNPACK's, and the scores of a network that
    # was trained for a minute lie near to each other: 0.963 and 0.981 were seen in int8.
    assert min(result.values()) >= 0.95, result
    return {"equal_pixels": result}


MEDIAPIPE = """
import json, sys
import mediapipe, numpy as np
from PIL import Image
from mediapipe.tasks.python import BaseOptions, vision
file, *pictures = sys.argv[1:]
options = vision.ImageSegmenterOptions(BaseOptions(file), output_category_mask=True)
maps = []
with vision.ImageSegmenter.create_from_options(options) as segmenter:
    for path in pictures:
        image = np.asarray(Image.open(path).convert("RGB"))
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
        maps.append(segmenter.segment(image).category_mask.numpy_view().squeeze().copy())
    labels = list(segmenter.labels)
equal = float((np.stack(maps) == np.load(file[: -len("tflite")] + "npy")).mean())
print(json.dumps([mediapipe.__version__, labels, equal]))
"""


def in_mediapipe(folder):
    """Every logits and probabilities file in MediaPipe's ImageSegmenter: labels, category mask."""
    from keras_pspnet.labels import SCENES

    python = environment(folder / "venv", "mediapipe", "pillow")
    source, result = exported(), {}
    pictures = [source / f"{index}.png" for index in range(PICTURES)]
    for output in ("logits", "probabilities"):
        for name in FORMATS:
            file = source / output / f"pspnet_{name}.tflite"
            said = run(python, "-c", MEDIAPIPE, file, *pictures)
            version, labels, equal = json.loads(said.splitlines()[-1])
            assert labels == list(SCENES.names), labels
            result[f"{output} {name}"] = equal
    assert min(result.values()) >= 0.99, result
    return {"mediapipe": version, "equal_pixels": result}


def in_the_browser(folder):
    """export/web in headless Chromium: class maps, a dropped picture, nothing asked elsewhere."""
    from PIL import Image

    source, result = exported(), {}
    files = [source / "classes" / f"pspnet_{name}.tflite" for name in FORMATS]
    files.append(source / "logits" / "pspnet_float32.tflite")
    with Proxy() as proxy, Browser(folder / "profile", proxy.port) as browser:
        for file in files:
            program = ROOT / "export" / "web" / "serve.py"
            command = [sys.executable, str(program), str(file), "--port", "0"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                try:
                    for line in server.stdout:
                        if line.startswith("http://"):
                            break
                    address = line.split()[0]
                    shown = _page(browser, address, source, file, folder)
                finally:
                    server.kill()
            assert all(url.startswith(("http://127.0.0.1", "blob:")) for url in shown["requests"])
            assert not shown["problems"], shown["problems"]
            result[f"{file.parent.name} {file.stem}"] = shown["equal_pixels"]
        assert not proxy.asked(), proxy.asked()
        version = browser.version
    with Image.open(folder / "page.png") as page:
        page.save(KEPT / "web.png")
    # Dynamic-range kernels quantise activations as they run: other SIMD units round otherwise.
    dynamic = result["classes pspnet_dynamic"]
    assert min(v for name, v in result.items() if "dynamic" not in name) >= 0.999, result
    assert dynamic >= 0.99, result
    return {"browser": version, "equal_pixels": result}


SEGMENT = """
(async () => {
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  const {classes} = await window.pspnet.segmentBytes(bytes);
  return btoa(String.fromCharCode(...classes));
})()
"""
DROP = """
(async () => {
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  await window.pspnet.open(new File([bytes], "scene.png", {type: "image/png"}));
  const box = document.getElementById("picture").getBoundingClientRect();
  const place = {clientX: box.left + box.width / 2, clientY: box.top + 5};
  document.getElementById("picture").dispatchEvent(new PointerEvent("pointermove", place));
  const text = (id) => document.getElementById(id).textContent;
  return [text("status"), text("pointer"), text("legend")];
})()
"""


def _page(browser, address, source, file, folder):
    """What the page makes of the pictures, and what it asked for."""
    from PIL import Image

    def evaluate(expression):
        answer = browser.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    browser.events = []
    browser.ask("Page.navigate", url=address)
    for _ in range(600):
        if evaluate("window.pspnet !== undefined"):
            break
        time.sleep(0.1)
    expected, equal = np.load(file.with_suffix(".npy")), []
    for index in range(PICTURES):
        picture = source / f"{index}.png"
        with Image.open(picture) as image:
            pixels = base64.b64encode(np.asarray(image.convert("RGB")).tobytes()).decode()
        found = np.frombuffer(base64.b64decode(evaluate(SEGMENT % pixels)), np.uint8)
        equal.append(float((found == expected[index].ravel()).mean()))
    drawn = {}
    for name, pixel in (("white", (255,) * 4), ("clear", (0,) * 4)):  # both look white
        stream = io.BytesIO()
        Image.new("RGBA", (40, 30), pixel).save(stream, "PNG")
        drawn[name] = evaluate(DROP % base64.b64encode(stream.getvalue()).decode())[1:]
    assert drawn["white"] == drawn["clear"], drawn
    data = base64.b64encode(picture.read_bytes()).decode()
    status, pointer, legend = evaluate(DROP % data)
    assert status.endswith(" ms") and pointer and pointer in legend, (status, pointer, legend)
    shot = browser.ask("Page.captureScreenshot", captureBeyondViewport=True)
    (folder / "page.png").write_bytes(base64.b64decode(shot["data"]))
    requests, problems = [], []
    for event in browser.events:
        method, values = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            requests.append(values["request"]["url"][:200])
        elif method in ("Runtime.exceptionThrown", "Network.loadingFailed"):
            problems.append(str(values)[:500])
    return {"equal_pixels": sum(equal) / PICTURES, "requests": requests, "problems": problems}
