# make demo   the whole study on the phantom, 2 cores, about ten minutes
# make test   the tests; SLOW=1 adds the long ones
# make lint   ruff and mypy
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/ready
	$(BIN)/python train.py experiment=controlnet preset=demo resume=true
	$(BIN)/python generate.py generator=runs/demo/controlnet/0 preset=demo resume=true
	$(BIN)/python train.py -m experiment=classifier preset=demo synthetic=0,108,216,only 'seed=range(2)' resume=true
	$(BIN)/python evaluate.py preset=demo resume=true

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(SLOW),-m "slow or not slow")

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A virtual environment of the locked versions; uv is installed into it when the machine has none.
.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv
	UV=$$(test -x $(BIN)/uv && echo $(BIN)/uv || command -v uv); \
	$$UV pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[dev,cluster,ray,loggers]' -c requirements.lock
	touch $@

clean:
	rm -rf .venv
