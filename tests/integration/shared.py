"""One stand-in and one gateway for a whole file, whose tests must not harm each other: the file defines a `pair` of its
own, for its module, and imports these fixtures, which take the place of those in conftest.py."""
import contextlib

import pytest
from frames import Watch
from gateway import Gateway
from standin.harness import Harness


@contextlib.contextmanager
def pair_at(directory, **options):
    with Harness() as far:
        with Gateway(directory, far.url, drain={'limit': '1s'}, **options) as gw:
            yield far, gw
        assert far.state(lines=False)['errors'] == []


@pytest.fixture
def far(pair):
    return pair[0]


@pytest.fixture
def gw(pair):
    return pair[1]


@pytest.fixture
def watch(far, gw):
    return Watch(far, gw)
