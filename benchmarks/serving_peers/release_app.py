"""Make the application of the release in the current folder, for a server that imports it; see serving_stacks.py."""

from fastapi import FastAPI

from serving.app import create_app
from serving.settings import Settings


def app() -> FastAPI:
    """Make it with the settings that the environment has."""
    return create_app(Settings())
