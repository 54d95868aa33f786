"""One world for all tests here; without root or namespaces each test is skipped, and says why."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from world import World, obstacle           # noqa: E402


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    why = obstacle()
    if why:
        pytest.skip('no network namespaces: ' + why)
    made = World(tmp_path_factory.mktemp('world'))
    try:
        made.populate()
        yield made
    finally:
        made.close()
