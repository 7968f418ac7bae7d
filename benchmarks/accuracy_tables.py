"""The tables of what networks score, as Markdown lines, from benchmarks/results/."""

from result_files import read

VARIANTS = ("with the pyramid", "without (bins=())")


def scenes():
    """Return Markdown lines: the generated scenes, with and without the pyramid."""
    baselines, pyramid, demo = read("scenes_baselines"), read("pyramid"), read("demo")
    rows = [
        ("a classifier that sees one pixel", f"{baselines['pixel']['mIoU']:.3f}", "1"),
        ("a classifier that sees 9x9 pixels", f"{baselines['patch9']['mIoU']:.3f}", "1"),
    ]
    with_pyramid, without = VARIANTS
    for variant, label in (
        (without, "PSPNet without its pyramid (`bins=()`)"),
        (with_pyramid, "PSPNet"),
    ):
        values = pyramid["variants"][variant]
        rows.append((label, f"{values['mIoU']:.3f} ± {values['mIoU_std']:.3f}", "3"))
    rows.append(("PSPNet, `make demo`, Keras", f"{demo['mIoU_keras']:.3f}", "1"))
    rows.append(("the same as `.tflite`, without TensorFlow", f"{demo['mIoU_tflite']:.3f}", "1"))
    lines = ["| on held-out generated scenes, 185x185 | mIoU | seeds |", "|---|---:|---:|"]
    lines += [f"| {name} | {score} | {seeds} |" for name, score, seeds in rows]
    gain = pyramid["variants"]
    classes = gain[with_pyramid]["classes"]
    lines += ["", "| IoU, mean of 3 seeds | " + " | ".join(classes) + " |"]
    lines.append("|---|" + "---:|" * len(classes))
    for variant, label in ((with_pyramid, "PSPNet"), (without, "no pyramid")):
        values = gain[variant]["classes"].values()
        lines.append(f"| {label} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return lines


def camvid():
    """Return Markdown lines: the trainings on CamVid."""
    lines = ["| CamVid validation, 480x360 | weights | epochs | minutes | mIoU | pixel accuracy |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    runs = read("camvid")["runs"].values()
    for run in runs:
        recipe = run["recipe"]
        start = {"imagenet": "ImageNet"}.get(recipe["backbone_weights"], "from scratch")
        strides = f"{recipe['output_stride']}"
        if recipe["coarse_epochs"]:
            fine = recipe["epochs"] - recipe["coarse_epochs"]
            strides = f"{2 * recipe['output_stride']}" + f", last {fine} epochs {strides}" * bool(
                fine
            )
        lines.append(
            f"| EfficientNet-Lite0, output stride {strides} | {start} | {recipe['epochs']} "
            f"| {run['minutes']:.0f} | {run['mIoU']:.3f} | {run['pixel_accuracy']:.3f} |"
        )
    classes = next(iter(runs))["classes"]
    lines += ["", "| IoU of the first | " + " | ".join(classes) + " |"]
    lines.append("|---|" + "---:|" * len(classes))
    lines.append("| | " + " | ".join(f"{value:.2f}" for value in classes.values()) + " |")
    return lines


def streets():
    """Return Markdown lines: the phone network on drives that it never saw."""
    forms = read("streets")["short"]
    names = {"short_before": "without these", "short": "detail and averages"}
    names |= {"short_colors": "and colours", "int8": "this in int8"}
    rows = {names[form]: forms[form] for form in names if form in forms}
    classes = next(iter(rows.values()))["classes"]
    lines = ["| | " + " | ".join(rows) + " |", "|---|" + "---:|" * len(rows)]
    means = {key: key.replace("_", " ") for key in ("mIoU", "pixel_accuracy")}
    for key, label in means.items():
        lines.append(
            f"| {label} | " + " | ".join(f"{row[key]:.3f}" for row in rows.values()) + " |"
        )
    for clip in next(iter(rows.values()))["folds"]:
        found = (f"{row['folds'][clip]['mIoU']:.3f}" for row in rows.values())
        lines.append(f"| mIoU of {clip} alone | " + " | ".join(found) + " |")
    for name in classes:
        found = (f"{row['classes'][name]:.2f}" for row in rows.values())
        lines.append(f"| {name} | " + " | ".join(found) + " |")
    return lines


def mobile():
    """Return Markdown lines: small networks for phones."""
    names = ("mIoU", "in int8", "ms float32", "ms int8", "MB int8", "MB held")
    lines = ["| Phone networks on CamVid val | " + " | ".join(names) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    for row in read("mobile")["networks"].values():
        if row["epochs"] is None:
            label = "MobileNetV2, output stride 16, width 128"
        else:
            label = f"Lite0, output stride {row['output_stride']}, width {row['channels']}"
        scores = [row["mIoU"].get(kind) for kind in ("keras", "int8")]
        cells = [label, *("not trained" if score is None else f"{score:.3f}" for score in scores)]
        cells += [f"{row[kind]['milliseconds']:.0f}" for kind in ("float32", "int8")]
        cells += [f"{row['int8'][key] / 1e6:.1f}" for key in ("bytes", "peak_bytes")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def receptive_field():
    """Return Markdown lines: the sides of receptive fields."""
    columns = ("theoretical_side", "side_with_half", "side_with_nine_tenths")
    lines = ["| pixels | theoretical | half of the change | nine tenths |", "|---|---:|---:|---:|"]
    for layer, variants in read("what_it_sees")["receptive_field"]["layers"].items():
        for variant, sizes in variants.items():
            cells = (str(sizes[column]) for column in columns)
            lines.append(f"| {layer}, {variant} | " + " | ".join(cells) + " |")
    return lines


def failures():
    """Return Markdown lines: the failures of each kind, and what was taken for what."""
    result = read("what_it_sees")
    kinds, seeds = result["failures"]["kinds"], len(result["networks"]["seeds"])
    variants = [name for name in next(iter(kinds.values())) if name != "cases"]
    lines = ["| share of the cases that fail | cases | " + " | ".join(variants) + " |"]
    lines.append("|---|---:|" + "---:|" * len(variants))
    for kind, found in kinds.items():
        cells = []
        for variant in variants:
            share, spread = (100 * found[variant][key] for key in ("share", "share_std"))
            cells.append(f"{share:.1f} ± {spread:.1f} %" if seeds > 1 else f"{share:.1f} %")
        lines.append(f"| {kind} | {found['cases']} | " + " | ".join(cells) + " |")
    lines += ["", "The most frequent answers of one network, in cases:", ""]
    for kind, found in kinds.items():
        for variant in variants:
            answers = found[variant]["answers_of_one_network"].items()
            listed = ", ".join(f"{answer} {number:.0f}" for answer, number in answers)
            lines.append(f"- {kind}, {variant}: {listed or 'none'}.")
    return lines


def ablations():
    """Return Markdown lines: the paper's tables 1 to 4 on generated scenes."""
    lines = []
    for title, rows in read("ablations")["tables"].items():
        title = f"Table {title}" if title[0].isdigit() else title.capitalize()
        lines += [f"### {title}", "", "| | mIoU, % | seeds | paper, % |", "|---|---:|---:|---:|"]
        for name, row in rows.items():
            score = f"{100 * row['mIoU']:.1f}"
            score += f" ± {100 * row['mIoU_std']:.1f}" if row["seeds"] > 1 else ""
            paper = row["paper_mIoU"] or ""
            lines.append(f"| {name} | {score} | {row['seeds']} | {paper} |")
        lines.append("")
    return lines[:-1]


def ablations_camvid():
    """Return Markdown lines: the pyramid and the auxiliary loss on a drive of CamVid left out."""
    rows = read("ablations")["camvid"]["rows"]
    lines = ["| | mIoU, % | pixel accuracy, % |", "|---|---:|---:|"]
    for name, row in rows.items():
        score, accuracy = 100 * row["mIoU"], 100 * row["pixel_accuracy"]
        lines.append(f"| {name} | {score:.1f} | {accuracy:.1f} |")
    return lines
