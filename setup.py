"""For scrapyd-deploy, which asks for this file; all that it says stands in pyproject.toml."""

from setuptools import setup

setup()
