# Everything runs from a bare clone with python3 alone: the first target makes the environment.
PYTHON ?= python3
BIN := .venv/bin
CORE := .venv/.core
READY := .venv/.ready
# Without --no-compile pip compiles all of TensorFlow, most of which is never imported.
PIP := $(BIN)/python -m pip install --no-compile --disable-pip-version-check -c constraints.txt

.PHONY: install demo test verify bench ablations notebooks docs lint

# The demo needs the package alone; the other targets add its extras, the first time.
demo: $(CORE)
	$(BIN)/keras-pspnet demo --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

verify: $(READY)
	$(BIN)/python tests/verify/verify.py

bench: $(READY)
	$(BIN)/python benchmarks/scenes_baselines.py --json benchmarks/results/scenes_baselines.json
	$(BIN)/python benchmarks/pyramid.py --out runs/pyramid
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/training_steps.py
	$(BIN)/python benchmarks/operators.py
	$(BIN)/python benchmarks/protocol.py
	$(BIN)/python benchmarks/litert_forms.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/training_memory.py
	$(BIN)/python benchmarks/pictures.py
	$(BIN)/python benchmarks/peers/peers.py
	$(BIN)/python benchmarks/peers/training.py
	$(BIN)/python benchmarks/readme_table.py

# The paper's tables, in about an hour and a half; CAMVID=DIR adds those on CamVid. Then what networks
# of these trainings see.
ablations: $(READY)
	$(BIN)/python benchmarks/ablations.py $(if $(CAMVID),--camvid $(CAMVID))
	$(BIN)/python benchmarks/what_it_sees.py

# Their pictures and numbers are kept: executed in place, one after the other, since they measure.
notebooks: $(READY)
	cd notebooks && ../$(BIN)/python -m pytest --nbmake --overwrite --nbmake-timeout=3600 -p no:cacheprovider -v .
	$(BIN)/python benchmarks/shrink_notebooks.py
	$(BIN)/ruff format --quiet notebooks

# Offline. The notebooks become pages with the outputs they hold; nothing is executed.
# Not --quiet: mkdocs would then build with warnings, also under --strict.
docs: $(READY)
	rm -rf docs/notebooks
	$(BIN)/python -m nbconvert --to markdown --output-dir docs/notebooks --log-level WARN \
		--CoalesceStreamsPreprocessor.enabled=True \
		--NbConvertBase.display_data_priority="['image/jpeg', 'image/png', 'text/plain']" notebooks/*.ipynb
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

install: $(READY)

$(CORE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "keras_pspnet needs Python 3.11 or newer; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

$(READY): $(CORE)
	$(PIP) -e '.[datasets,pretrained,mobile,video,docs,test]'
	@touch $@
