"""One name for the commands: `cmr train ...`. In a wheel, this package also holds train.py,
generate.py, evaluate.py, conf/ and assets/ (setup.py)."""
