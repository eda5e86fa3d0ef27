# make demo   the whole study on the phantom, 2 cores, about ten minutes
# make test   the tests; SLOW=1 adds the long ones
# make lint   ruff and mypy
# make docs   the documentation as a site, in site/; SERVE=1 shows it at http://127.0.0.1:8000
# make wheel  dist/*.whl: the commands as `cmr train` ..., with conf/ and assets/, for where there is no checkout
# PYTHON=python3.12 chooses the interpreter, TORCH=cpu (or gpu) PyTorch's build; see scripts/venv.sh
PYTHON ?= python3
TORCH ?= auto
BIN := .venv/bin

.PHONY: demo test lint docs wheel clean

demo: .venv/ready
	$(BIN)/python train.py experiment=controlnet preset=demo resume=true
	$(BIN)/python generate.py preset=demo resume=true
	$(BIN)/python train.py -m experiment=classifier preset=demo synthetic=0,108,216,only 'seed=range(4)' hydra/launcher=processes resume=true
	$(BIN)/python evaluate.py preset=demo
	@echo; echo "What next?"
	@echo "  are there copies of training images in it?  $(BIN)/python evaluate.py preset=demo audit=true"
	@echo "  where does a classifier look?               $(BIN)/python train.py experiment=explain preset=demo classifier=runs/demo/classifier/synthetic-216/0"
	@echo "  your own hearts:                            $(BIN)/python train.py experiment=inspect cohort=ukbb cohort.root=<folders> cohort.table=<table>"

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(SLOW),-m "slow or not slow")

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	if [ -x $(BIN)/uv ]; then uv=$(BIN)/uv; else uv=uv; fi; $$uv pip install --quiet --python $(BIN)/python -e '.[docs]' -c requirements.lock
	$(BIN)/python scripts/options.py
	$(BIN)/mkdocs $(if $(SERVE),serve,build --strict --quiet)

wheel: .venv/ready
	rm -rf build
	if [ -x $(BIN)/uv ]; then $(BIN)/uv build --wheel; else uv build --wheel; fi

# a virtual environment of the locked versions
.venv/ready: pyproject.toml requirements.lock scripts/venv.sh
	PYTHON='$(PYTHON)' TORCH='$(TORCH)' sh scripts/venv.sh
	touch $@

clean:
	rm -rf .venv
