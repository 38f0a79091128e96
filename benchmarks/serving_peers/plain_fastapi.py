"""Serve with FastAPI in the usual way: an endpoint in its thread pool calls the session, in one process.

    python -m benchmarks.serving_peers.plain_fastapi MODEL PORT THREADS

THREADS are the session's; 0 is its default, one for each core, as in most such servers.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, UploadFile

from benchmarks.serving_peers.answer import answer, open_model


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.session = open_model(Path(sys.argv[1]), int(sys.argv[3]))
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, list[Any]]:
    return answer(app.state.session, file.file.read())


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
