#!/bin/sh
# What Containerfile does within the image: the program as a wheel, with the locked versions.
#   container.sh <checkout> <build of PyTorch: cpu, cu126, cu128 ...; pypi: PyPI's own> [python]
set -eu
SOURCES=$1 TORCH=$2 PYTHON=${3:-python3}
EXTRAS=cluster,loggers

"$PYTHON" -m pip install --quiet --no-cache-dir --disable-pip-version-check uv
uv() { "$PYTHON" -m uv "$@"; }
uv build --quiet --wheel --out-dir "$SOURCES/dist" "$SOURCES"
backend="--torch-backend $TORCH"
[ "$TORCH" = pypi ] && backend=
for wheel in "$SOURCES"/dist/*.whl; do
    uv pip install --quiet --compile-bytecode --python "$PYTHON" $backend "$wheel[$EXTRAS]" -c "$SOURCES/requirements.lock"
done
"$PYTHON" -m cmr --help >/dev/null
