"""A web application that tells what it runs in."""

# Its dependencies are in its own environment only.
# mypy: ignore-errors

import os
import sys

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def index() -> dict[str, object]:
    return {
        "prefix": sys.prefix,
        "executable": sys.executable,
        "module": __file__,
        "uid": os.getuid(),
        "gid": os.getgid(),
        "environment": dict(os.environ),
    }
