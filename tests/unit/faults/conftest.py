"""The mock API inside the test process."""

from inprocess import mock

__all__ = ["mock"]
