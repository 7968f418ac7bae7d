"""The page of `evaluate --report`: right numbers, whatever the names, and nothing asked for."""

import base64
import io
import itertools
import json
import weakref
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from keras_pspnet import cli, files, scenes
from keras_pspnet.cli import commands
from keras_pspnet.labels import SCENES, LabelSet
from keras_pspnet.scoring.metrics import evaluate
from keras_pspnet.scoring.report import Report, page_in

WICKED = '<b>&"x'
LABELS = LabelSet(("road", WICKED, "sky", "ghost", "only <i>guessed"))
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
VOID_TAGS = {"meta", "link", "img"}


class Page(HTMLParser):
    """Elements, tables as lists of rows of texts, and whether every tag is closed."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.tables, self.texts, self.open = [], [], [], []
        self.feed(content.decode())
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID_TAGS:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def inside(self, tag):
        return [text for name, text in self.texts if name == tag and text.strip()]

    def pictures(self):
        """Name and score of each picture in the order of the page."""
        names = [a["title"] for a in self.all("bdi") if "title" in a]
        return list(zip(names, (float(text) for text in self.inside("h4"))))


def examples(count=9, size=(20, 30), classes=3, seed=0):
    """(name, picture, mask, prediction); class 3 is nowhere, class 4 in predictions alone."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        mask = rng.integers(0, classes, size).astype(np.uint8)
        wrong = rng.random(size) < (number * 7 % count) / max(count, 2)
        prediction = np.where(wrong, rng.integers(0, classes, size), mask).astype(np.uint8)
        prediction[0, :2], mask[-2:] = 4, 255
        yield f"set/{number}.png", rng.integers(0, 256, (*size, 3), np.uint8), mask, prediction


def report(pictures, labels=LABELS, **about):
    """(Report, page, scores) of pictures with predictions; no time goes into the scores."""
    watched, guesses, told = Report(labels), [], []
    for name, image, mask, guess in pictures:
        guesses.append(guess)
        told.append((name, image, mask))
    guesses = iter(guesses)
    scores = evaluate(lambda _: next(guesses), told, labels, on_picture=watched.add)
    scores["seconds"] = 1.25
    about = {"model": "run/best.keras", "dataset": "folder", "split": "val", **about}
    about.setdefault("command", "keras-pspnet evaluate run/best.keras --report out")
    return watched, watched.page(scores, **about), scores


def own_miou(mask, prediction, classes=5):
    ious = []
    for label in range(classes):
        true, found = mask == label, (prediction == label) & (mask != 255)
        if (true | found).any():
            ious.append((true & found).sum() / (true | found).sum())
    return np.mean(ious)


def percentage(part, whole):
    return f"{100 * part / whole:.1f} %"


def decoded(uri):
    kind, _, data = uri.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def asks_for_nothing(content):
    """All that a page could fetch or run is inside it, and its policy forbids the rest."""
    page = Page(content)
    policies = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policies == [POLICY]
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "base", "form", "a", "video", "svg"}
    assert [a["href"] for a in page.all("link")] == ["data:,"]
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "srcset" for name in attributes), tag
        assert attributes.get("src", "data:").startswith("data:")
        assert "url(" not in attributes.get("style", "")
    (style,) = page.inside("style")
    assert "url(" not in style and "@import" not in style
    assert b"http:" not in content and b"https:" not in content
    return page


def test_the_page_asks_for_nothing_and_says_where_it_comes_from():
    content = report(examples(), command="keras-pspnet evaluate 'a & b' --report <out>")[1]
    page = asks_for_nothing(content)
    assert page.inside("h1") == ["best.keras on folder, val"]
    assert page.inside("code") == ["keras-pspnet evaluate 'a & b' --report <out>"]
    (title,) = page.inside("title")
    assert title.startswith("best.keras on folder, val: mIoU 0.")
    assert all(image["alt"] for image in page.all("img"))
    assert all(table["scope"] in ("row", "col") for table in page.all("th"))


def test_the_summary_has_the_names_and_numbers_of_the_json():
    _, content, scores = report(examples())
    rows = {row[0]: row[1] for row in Page(content).tables[0]}
    assert set(rows) == set(scores) - {"classes", "per_class"}
    for key in set(rows) - {"images", "seconds"}:
        assert rows[key] == f"{scores[key]:.4f}"
    assert rows["images"] == "9" and rows["seconds"] == "1.2"
    void = 9 * 2 * 30
    assert f"{9 * 600 - void:,} pixels count; 10.0 %" in content.decode()


def test_every_class_has_its_numbers():
    pictures = list(examples())
    truth = np.stack([mask for _, _, mask, _ in pictures])
    found = np.stack([prediction for *_, prediction in pictures])
    valid = truth != 255
    table = Page(report(pictures)[1]).tables[1]
    assert table[0] == ["class", "IoU", "recall", "precision", "F1", "of the truth"]
    rows = {row[0]: row[1:] for row in table[1:]}
    assert set(rows) == set(LABELS.names)
    for label in (0, 1, 2):
        hit = ((truth == label) & (found == label)).sum()
        true, guessed = (truth == label).sum(), ((found == label) & valid).sum()
        expected = [hit / (true + guessed - hit), hit / true, hit / guessed]
        expected.append(2 * hit / (true + guessed))
        iou, bar, *rest = rows[LABELS.names[label]]
        assert [iou, *rest[:3]] == [f"{value:.4f}" for value in expected] and bar == ""
        assert rest[3] == percentage(true, valid.sum())
    assert rows["ghost"] == ["absent"] and table[-1][0] == "ghost"
    assert rows["only <i>guessed"] == [
        "0.0000",
        "",
        "not in the truth",
        "0.0000",
        "0.0000",
        "0.0 %",
    ]
    ious = [float(row[1]) for row in table[1:-1]]
    assert ious == sorted(ious, reverse=True)


def test_the_iou_of_contours_is_on_the_page_where_it_was_asked_for():
    watched, _, scores = report(examples())
    about = {"model": "m", "dataset": "d", "split": "val", "command": "c"}
    for row in scores["per_class"].values():
        row["boundary_IoU"] = None if row["IoU"] is None else 0.125
    page = Page(watched.page({**scores, "boundary_mIoU": 0.5}, **about))
    assert {row[0]: row[1] for row in page.tables[0]}["boundary_mIoU"] == "0.5000"
    assert page.tables[1][0][-3:] == ["F1", "boundary IoU", "of the truth"]
    assert {row[-2] for row in page.tables[1][1:-1]} == {"0.1250"}
    assert page.tables[1][-1] == ["ghost", "absent"]


def test_a_class_that_is_never_predicted_says_so():
    mask = np.array([[0, 0, 1, 1]], np.uint8)
    content = report([("a", np.zeros((1, 4, 3), np.uint8), mask, mask * 0)])[1]
    rows = {row[0]: row[1:] for row in Page(content).tables[1]}
    assert rows[WICKED] == ["0.0000", "", "0.0000", "never predicted", "0.0000", "50.0 %"]
    bars = [a["style"] for a in Page(content).all("b") if "style" in a]
    assert bars == ["width:50.0%", "width:0.0%"]


def test_the_confusion_matrix_is_in_percent_of_the_truth():
    truth = np.repeat([0, 1, 2], 1000).reshape(30, 100).astype(np.uint8)
    found = truth.copy()
    found[0, :3] = 1  # 0.3 % of the road
    found[10:15] = 2  # half of the second class
    found[20, :40] = 0
    _, content, _ = report([("a", np.zeros((30, 100, 3), np.uint8), truth, found)])
    page = Page(content)
    matrix, largest = page.tables[2], page.tables[3]
    assert matrix[0] == ["truth", "road", WICKED, "sky"]  # absent classes are left out
    assert matrix[1] == ["road", ">99", "<1", ""]
    assert matrix[2] == [WICKED, "", "50", "50"]
    assert matrix[3] == ["sky", "4", "", "96"]
    tips = [a["title"] for a in page.all("td") if "title" in a]
    assert f"{WICKED} predicted as sky: 500 pixels" in tips and len(tips) == 9
    assert largest[1:] == [
        [WICKED, "sky", "50.0 %", "500"],
        ["sky", "road", "4.0 %", "40"],
        ["road", WICKED, "0.3 %", "3"],
    ]


def test_where_nothing_is_wrong_nothing_is_listed():
    mask = np.zeros((3, 4), np.uint8)
    page = Page(report([("a", np.zeros((3, 4, 3), np.uint8), mask, mask)])[1])
    assert len(page.tables) == 3 and "No pixel is wrong." in page.inside("p")
    assert page.tables[2] == [["truth", "road"], ["road", "100"]]


def test_names_from_users_stay_text():
    pictures = [(f"x/{WICKED}.png", *rest) for _, *rest in examples(1)]
    for content in (
        report(pictures)[1],
        report(pictures, model=WICKED, dataset=WICKED, split=WICKED, command=WICKED)[1],
    ):
        page = asks_for_nothing(content)
        assert page.pictures()[0][0] == f"x/{WICKED}.png"
        assert f"{WICKED}.png" in page.inside("bdi") and WICKED in page.inside("bdi")
        # What the page itself makes bold or marks: bars, numbers, swatches.
        assert all("style" in a or a == {} for a in page.all("b"))
        assert len(page.all("b")) == 4 + 4 and b"<b>&amp;" not in content
    assert page.inside("code") == [WICKED] and page.inside("h1")[0].startswith(f"{WICKED} on")


def test_a_file_name_that_is_no_text_is_shown_as_far_as_it_is():
    pictures = [("a\udcff.png", *rest) for _, *rest in examples(1)]
    assert Page(report(pictures)[1]).pictures()[0][0] == "a?.png"


def test_the_same_scores_give_the_same_bytes():
    assert report(examples())[1] == report(examples())[1]
    assert report(examples())[1] != report(examples(seed=1))[1]


@pytest.mark.parametrize("count", [1, 2, 3, 11, 12, 13, 40])
def test_the_worst_and_the_best_in_order_and_none_twice(count):
    pictures = list(examples(count, size=(6, 9)))
    scores = [(own_miou(mask, guess), n) for n, (_, _, mask, guess) in enumerate(pictures)]
    order = [n for _, n in sorted(scores)]
    worst = order[: min((count + 1) // 2, 6)]
    best = order[::-1][: min(count // 2, 6)]
    page = Page(report(pictures)[1])
    shown = page.pictures()
    assert [name for name, _ in shown] == [f"set/{n}.png" for n in (*worst, *best)]
    assert [score for _, score in shown] == [round(scores[n][0], 4) for n in (*worst, *best)]
    headings = [text for text in page.inside("h3") if "picture" in text]
    assert headings == (["The only picture"] if count == 1 else ["Worst pictures", "Best pictures"])
    assert len(page.all("img")) == 4 * len(shown)


def test_only_the_shown_pictures_are_kept_and_those_small():
    watched, arrays, most = Report(LABELS), [], 0

    def told():
        for name, image, mask, guess in examples(60, size=(12, 16)):
            guesses.append(guess)
            arrays.extend(map(weakref.ref, (image, mask)))
            yield name, image, mask

    def on_picture(*seen):
        nonlocal most
        watched.add(*seen)
        most = max(most, len(watched.kept))

    guesses = []
    evaluate(lambda _: guesses.pop(), told(), LABELS, on_picture=on_picture)
    assert most == 12 == len(watched.kept)
    assert sum(array() is not None for array in arrays) <= 2  # those of the last picture
    assert watched.images == 60


def test_thumbnails_show_truth_prediction_void_and_what_is_wrong():
    image = np.full((40, 60, 3), 200, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 20:], mask[:, 40:] = 2, 255
    guess = mask * 0
    page = Page(report([("a", image, mask, guess)])[1])
    picture, truth, found, wrong = (decoded(a["src"]) for a in page.all("img"))
    assert np.abs(picture.astype(int) - 200).max() <= 2
    assert (truth[:, :20] == LABELS.colors[0]).all() and (truth[:, 20:40] == LABELS.colors[2]).all()
    assert (found == LABELS.colors[0]).all()  # also where the truth is void
    assert (truth[:, 40:] == 40).all()  # void
    assert np.abs(wrong[4:-4, 4:16].astype(int) - 230).max() <= 6  # right: lightened
    red, *others = wrong[4:-4, 24:36].reshape(-1, 3).mean(0)
    assert red > 220 and max(others) < 110
    assert np.abs(wrong[:, 44:].astype(int) - 40).max() <= 6
    alt = [a["alt"] for a in page.all("img")]
    assert alt == ["picture", "truth", "prediction", "wrong pixels, red"]
    legend = [text for text in page.inside("li") if "void" in text]
    assert legend == ["void: 33.3 % of the pixels"]


@pytest.mark.parametrize(
    "size, expected", [((1000, 600), (480, 288)), ((3, 2000), (1, 480)), ((50, 480), (50, 480))]
)
def test_thumbnails_are_small(size, expected):
    mask = np.zeros(size, np.uint8)
    page = Page(report([("a", np.zeros((*size, 3), np.uint8), mask, mask)])[1])
    for image in page.all("img"):
        assert (int(image["height"]), int(image["width"])) == expected
        assert decoded(image["src"]).shape[:2] == expected


def test_of_many_classes_the_largest_confusions_are_listed():
    labels = LabelSet(tuple(f"class {n} {WICKED}" for n in range(150)))
    truth = np.arange(149, dtype=np.uint8).repeat(20).reshape(149, 20)  # class 149 is absent
    found = truth.copy()
    for n in range(40):
        found[n, : n % 19 + 1] = n + 1
    _, content, _ = report([("a", np.zeros((149, 20, 3), np.uint8), truth, found)], labels)
    page = asks_for_nothing(content)
    assert {row[0] for row in page.tables[1][1:]} == set(labels.names)
    largest = page.tables[2]
    assert largest[0][:2] == ["truth", "predicted as"] and len(largest) == 31
    assert largest[1] == [labels.names[18], labels.names[19], "95.0 %", "19"]
    pixels = [int(row[3]) for row in largest[1:]]
    assert pixels == sorted((n % 19 + 1 for n in range(40)), reverse=True)[:30]
    assert len(page.tables) == 3 and len(page.all("img")) == 4
    assert len(content) < 300_000


def test_up_to_thirty_classes_that_occur_are_a_table():
    labels = LabelSet.numbered(150)
    for count, tables in ((30, 4), (31, 3)):
        mask = np.arange(count, dtype=np.uint8)[None]
        guess = np.roll(mask, 1)
        content = report([("a", np.zeros((1, count, 3), np.uint8), mask, guess)], labels)[1]
        assert len(Page(content).tables) == tables


def test_more_than_255_classes():
    labels = LabelSet.numbered(300)
    mask = np.array([[299, 255, 65535, 0]], np.int32)
    guess = np.array([[299, 0, 5, 0]], np.int32)
    page = Page(report([("a", np.zeros((1, 4, 3), np.uint8), mask, guess)], labels)[1])
    rows = {row[0]: row[1] for row in page.tables[1]}
    assert rows["class_299"] == "1.0000" and rows["class_255"] == "0.0000"
    assert rows["class_0"] == "0.5000" and rows["class_5"] == "absent"


def test_pictures_of_nothing_but_void():
    void, image = np.full((4, 5), 255, np.uint8), np.zeros((4, 5, 3), np.uint8)
    page = Page(report([("a", image, void, void * 0)])[1])
    assert not page.all("img") and "No picture has a pixel that counts." in page.inside("p")
    assert all(row[1] == "absent" for row in page.tables[1][1:])
    one = next(examples(1))
    page = Page(report([("a", image, void, void * 0), one])[1])
    assert [name for name, _ in page.pictures()] == ["set/0.png"]


def test_a_place_that_cannot_be_a_page(tmp_path, refused):
    assert page_in(tmp_path / "new" / "report") == tmp_path / "new" / "report" / "index.html"
    (tmp_path / "index.html").mkdir()
    assert str(tmp_path / "index.html") in refused(page_in, tmp_path)
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused(page_in, tmp_path / "file" / "deeper")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "index.html"]


# --- the command ---


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model of the scenes' classes."""
    import keras

    import keras_pspnet
    from keras_pspnet.network.main_head import set_labels

    keras.utils.set_random_seed(3)
    network = keras_pspnet.build_pspnet(
        12, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=8
    )
    set_labels(network, SCENES)
    file = tmp_path_factory.mktemp("model") / "model.keras"
    network.save(file)
    return file


@pytest.fixture
def data(tmp_path):
    """Three scenes in the folder layout."""
    folder = tmp_path / "data"
    for kind, place in itertools.product(("images", "masks"), range(3)):
        file = folder / kind / "val" / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        scene = scenes.scene(place, split="val", size=(40, 60))
        Image.fromarray(scene[kind == "masks"]).save(file)
    (folder / "labels.json").write_text(json.dumps(SCENES.to_config()))
    return folder


def test_evaluate_writes_the_page(model, data, tmp_path, capsys):
    out = tmp_path / "a b" / "report"
    command = ["evaluate", str(model), "--dataset", "folder", "--data-dir", str(data)]
    command += ["--report", str(out), "--json", str(tmp_path / "scores.json")]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.endswith(f"look at {out / 'index.html'}\n")
    scores = json.loads((tmp_path / "scores.json").read_text())
    page = asks_for_nothing((out / "index.html").read_bytes())
    rows = {row[0]: row[1] for row in page.tables[0]}
    assert rows["mIoU"] == f"{scores['mIoU']:.4f}" and rows["images"] == "3"
    ious = {
        name: "absent" if iou is None else f"{iou:.4f}" for name, iou in scores["classes"].items()
    }
    assert {row[0]: row[1] for row in page.tables[1][1:]} == ious
    assert page.inside("h1") == ["model.keras on folder, val"]
    (typed,) = page.inside("code")
    assert typed.startswith("keras-pspnet evaluate ") and f"--report '{out}'" in typed
    assert sorted(name for name, _ in page.pictures()) == sorted(
        str(data / "images" / "val" / f"{n}.png") for n in range(3)
    )
    assert [path.name for path in out.iterdir()] == ["index.html"]


def test_evaluate_looks_at_the_place_first(model, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(
        commands.quiet, "quiet_tensorflow", lambda: pytest.fail("TensorFlow comes later")
    )
    for place in (tmp_path / "file", tmp_path / "file" / "report"):
        command = ["evaluate", str(model), "--dataset", "scenes", "--report", str(place)]
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(place) in error
    assert (tmp_path / "file").read_text() == "in the way"


def test_what_fails_leaves_nothing(model, data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "report"
    command = ["evaluate", str(model), "--dataset", "folder", "--data-dir", str(data)]
    command += ["--report", str(out), "--json", str(tmp_path / "scores" / "scores.json")]
    fsync, calls = files.os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) == 2:  # the scores are written, the page is not
            raise OSError(28, "No space left on device")
        fsync(number)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        assert cli.main(command) == 2
    assert "index.html: cannot be written: No space left" in capsys.readouterr().err
    assert not out.exists() and not (tmp_path / "scores").exists()
    mask = data / "masks" / "val" / "2.png"
    Image.fromarray(np.full((40, 60), 77, np.uint8)).save(mask)
    assert cli.main(command) == 2
    assert str(mask) in capsys.readouterr().err and not out.exists()
