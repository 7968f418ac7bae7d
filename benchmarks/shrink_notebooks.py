"""Keeps the notebooks' pictures as JPEG, each once; `make notebooks` calls it.

python benchmarks/shrink_notebooks.py
"""

import base64
import io
import json
from pathlib import Path

from PIL import Image

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def main():
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                if "image/png" in data:
                    png = base64.b64decode("".join(data.pop("image/png")))
                    data.setdefault("image/jpeg", jpeg(png))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def jpeg(png):
    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(stream, "JPEG", quality=85)
    return base64.b64encode(stream.getvalue()).decode()


if __name__ == "__main__":
    main()
