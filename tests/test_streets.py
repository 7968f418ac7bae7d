"""The study of streets: what is trained on what, what is kept, what is left."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture
def streets(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("streets", "folds", "machine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import streets

    return streets


class Recorded:
    """Stands for the trainings: notes them, and scores by the names of their folders."""

    def __init__(self, folder, scores, dry=False):
        self.runs, self.scores, self.dry, self.trainings = folder, scores, dry, []

    def trained(self, name, changes, splits, teacher=None):
        self.trainings.append((name, changes, splits, teacher))
        return self.runs / name

    def scored(self, runs, kind="keras"):
        (label,) = {run.name.removesuffix(f"-{clip}") for clip, run in runs.items()}
        return {"mIoU": self.scores[label, kind]}


SCORES = {
    ("baseline", "keras"): 0.5,
    ("baseline+detail", "keras"): 0.55,
    ("baseline+detail+averaged", "keras"): 0.54,
    ("baseline+detail+pasted", "keras"): 0.56,
    ("baseline+detail+pasted+dice", "keras"): 0.56,
    ("baseline+detail+pasted+colors", "keras"): 0.55,
    ("baseline+detail+pasted+taught", "keras"): 0.57,
    ("baseline+detail+pasted+taught", "norms"): 0.58,
}


def test_each_candidate_stands_beside_what_gained_before(streets, tmp_path):
    folds, result = Recorded(tmp_path, SCORES), tmp_path / "streets.json"
    study = streets.Study(folds, result, 3)
    study.study()
    rows = json.loads(result.read_text())["study"]
    assert list(rows) == list(streets.CANDIDATES)
    kept = [name for name, row in rows.items() if row["kept"]]
    assert kept == ["baseline", "detail", "pasted", "taught", "norms"]
    assert rows["averaged"]["gain"] == -0.01 and rows["dice"]["gain"] == 0.0
    assert rows["taught"]["beside"] == ["baseline", "detail", "pasted"]
    changes = {name: given for name, given, *_ in folds.trainings}
    length = {"epochs": 3, "output_stride": 16, "coarse_epochs": 0}
    assert changes["baseline-0006R0"] == length
    pasted = {"detail": 32, "scales": [0.5, 2.0], "copy_paste": 0.5}
    dice = {**pasted, "jaccard": 0.0, "dice": 0.5}
    assert changes["baseline+detail+pasted+dice-0001TP"] == {**length, **dice}
    for name, given, (seen, scored), teacher in folds.trainings:
        clip = name.rpartition("-")[2]  # that neither the network nor its teacher has seen
        assert (seen, scored) == (f"not-clip:{clip}", f"clip:{clip}")
        assert (teacher is not None) == ("taught" in name)
        assert teacher in (None, tmp_path / f"teacher-{clip}" / "last.keras")
        assert (given.get("backbone") == "efficientnet_lite2") == name.startswith("teacher")
    again = Recorded(tmp_path, SCORES)
    streets.Study(again, result, 3).study()
    assert not again.trainings


def test_averaged_weights_have_their_statistics_already(streets, tmp_path):
    scores = {**SCORES, ("baseline+detail+averaged", "keras"): 0.6}
    scores |= {
        (f"baseline+detail+averaged+{n}", "keras"): 0.1
        for n in ("pasted", "dice", "colors", "taught")
    }
    study = streets.Study(Recorded(tmp_path, scores), tmp_path / "streets.json", 3)
    study.study()
    assert "norms" not in study.results["study"] and study.kept()[-1] == "averaged"


def test_one_candidate_alone_and_an_estimate_write_nothing_else(streets, tmp_path):
    alone = Recorded(tmp_path, {**SCORES, ("baseline+dice", "keras"): 0.4})
    study = streets.Study(alone, tmp_path / "streets.json", 3)
    study.study("dice")
    assert list(study.results["study"]) == ["baseline", "dice"]
    dry = Recorded(tmp_path, {}, dry=True)
    study = streets.Study(dry, tmp_path / "none.json", 3)
    for stage in (study.study, study.final, study.presets):
        stage()
    assert not (tmp_path / "none.json").exists()
    names = [name for name, *_ in dry.trainings]
    assert names[-7:] == [
        "final-0006R0", "final-0001TP", "final_seed1-0006R0", "before-0006R0", "before-0001TP",
        "all", "plain",
    ]  # fmt: skip


def test_the_short_comparison_makes_the_preset_of_all_that_it_compares(streets, tmp_path):
    names = ("short_colors", "short", "short_before")
    folds = Recorded(tmp_path, {(name, kind): 0.5 for name in names for kind in ("keras", "int8")})
    study, presets = streets.Study(folds, tmp_path / "streets.json", 3), []
    study.phone_preset = lambda *given: presets.append(given)
    study.short()
    changes = {name: given for name, given, *_ in folds.trainings}
    together = {**streets.SHORT, "detail": 32, "ema": 0.99, "norm_batches": 16}
    assert changes["short-0006R0"] == together
    assert changes["short_before-0001TP"] == streets.SHORT
    assert changes["short_colors-0006R0"] == changes["short_colors-all"]
    assert changes["short_colors-all"] == {**together, "color": 0.6}
    ((run, *_, command),) = presets
    assert run == tmp_path / "short_colors-all" and command.endswith("CAMVID --short")
    assert folds.trainings[0][2] == ("train+val", "val")
    assert set(json.loads((tmp_path / "streets.json").read_text())["short"]) == {
        "changes", "int8", *names,
    }  # fmt: skip
