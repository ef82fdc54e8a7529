"""What `ociforge demo` builds: a pixi workspace with its own tiny channel, made by `tests/support/demo.py`."""
