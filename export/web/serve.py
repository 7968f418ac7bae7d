"""Serve a page on this machine that runs a .tflite file in the browser.

python export/web/serve.py FILE.tflite [--port 8000]

Drop a picture on the page, or use the camera. The page shows the overlay, the class under the
pointer and the milliseconds. Pictures stay in the browser. LiteRT for browsers (npm package
@litertjs/core, 12 MB) is downloaded once, checked and kept in ~/.cache/keras_pspnet.
"""

import argparse
import contextlib
import hashlib
import http.client
import http.server
import io
import json
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from keras_pspnet import cli
from keras_pspnet.errors import UserError
from keras_pspnet.files import writable_folder
from keras_pspnet.inference.load import check_model, load_model

HERE = Path(__file__).parent
VERSION = "2.5.3"
REGISTRY = "https://registry.npmjs.org/@litertjs"
PACKAGES = {  # name -> SHA-512, as in npm's registry
    "core": "3e51a66cc3aaf568ad5fb14ed2385b749c3d1ad85ab6ccae0905e34edff0259a"
    "3414b6b0e3cab8b73f08c2a82a08892f8981abf4e1432f59029cde27cd6a3225",
    "wasm-utils": "e1f262c3ab4142722cfb48c7fce435ea760e89297cffecd99e7e61dae97c6932"
    "878b4e6c56a656e7cd139a4efca42da44f7f40f4e60155d15ac2d799fec23591",
}
CACHE = Path.home() / ".cache" / "keras_pspnet" / f"litertjs-{VERSION}"
TYPES = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm"}


def main(arguments=None):
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("file", metavar="FILE.tflite")
    parser.add_argument("--port", type=int, default=8000, help="(%(default)s); 0 for any free one")
    return cli.run(parser.prog, serve, parser.parse_args(arguments))


def serve(options: argparse.Namespace) -> None:
    """Serve the page on 127.0.0.1 until interrupted.

    Raises:
        UserError: a file that cannot be run, a port that cannot be used, or see `runtime_folder`.
    """
    check_model(options.file, "tflite")
    predictor = load_model(options.file)
    model = {
        "file": Path(options.file).name,
        "size": predictor.size,
        "output": predictor.output,
        "labels": predictor.labels.to_config(),
    }
    runtime = runtime_folder()
    contents = {
        "/": (HERE / "index.html", None),
        "/app.js": (HERE / "app.js", None),
        "/model.tflite": (Path(options.file), None),
        "/model.json": (Path("model.json"), json.dumps(model).encode()),
    }
    for file in runtime.rglob("*"):
        if file.is_file():
            contents[f"/litert/{file.relative_to(runtime).as_posix()}"] = file, None

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle(self):
            with contextlib.suppress(ConnectionError):  # the page was closed or loaded anew
                super().handle()

        def do_GET(self):
            found = contents.get(self.path.partition("?")[0])
            if found is None:
                self.send_error(404)
                return
            file, data = found
            data = file.read_bytes() if data is None else data
            self.send_response(200)
            self.send_header("Content-Type", TYPES.get(file.suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(data)))
            # Browsers allow several threads only to pages with these two headers.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--port {options.port}: cannot be used: {error}; try another, or 0 for any free one"
        ) from error
    print(f"http://127.0.0.1:{server.server_port}/ runs {options.file}; Ctrl-C ends", flush=True)
    with server:
        server.serve_forever()


def runtime_folder() -> Path:
    """Return the folder with @litertjs/core and @litertjs/wasm-utils; download what is missing.

    Raises:
        UserError: a package cannot be downloaded, or its SHA-512 is not the expected one.
    """
    for name, digest in PACKAGES.items():
        if (CACHE / name / "package.json").is_file():
            continue
        address = f"{REGISTRY}/{name}/-/{name}-{VERSION}.tgz"
        print(f"downloading {address}", flush=True)
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise UserError(f"{address}: cannot be downloaded ({reason})") from error
        if hashlib.sha512(data).hexdigest() != digest:
            raise UserError(f"{address}: its SHA-512 is not the published one; nothing was kept")
        writable_folder(CACHE).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as partial:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(partial, filter="data")
            with contextlib.suppress(OSError):  # another process has made the folder
                (Path(partial) / "package").rename(CACHE / name)
    return CACHE


if __name__ == "__main__":
    sys.exit(main())
