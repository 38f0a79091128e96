"""Run the release on Ray Serve: the same application as `python -m serving`, in as many replicas as the load needs.

It runs in the folder of a release, which deploy/ray_serve.yaml names:

    pip install "ray[serve]==2.60.0"
    cp -R artifacts/NAME/release release && cp deploy/ray_serve.py release/ && cd release && serve run ray_serve:app
"""

from fastapi import FastAPI
from ray import serve

from serving.app import create_app
from serving.settings import Settings


def build() -> FastAPI:
    """Make the application; each replica calls this once, in its own process."""
    return create_app(Settings())


app = serve.deployment(name="release")(serve.ingress(build)()).bind()
