"""Fixtures for the tests of the stand-ins themselves."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from standin.certs import CA                        # noqa: E402
from standin.harness import Harness                 # noqa: E402


@pytest.fixture(scope='session')
def ca(tmp_path_factory):
    return CA(tmp_path_factory.mktemp('ca'))


@pytest.fixture(scope='session')
def _clear():
    with Harness() as harness:
        yield harness


@pytest.fixture(scope='session')
def _tls(ca):
    with Harness(tls=ca.issue('127.0.0.1', 'storage.test'), store_tls=True,
                 client_ca=ca.ca) as harness:
        yield harness


def _checked(harness):
    harness.reset()
    harness.start()
    yield harness
    harness.start()
    assert harness.state(lines=False)['errors'] == []


@pytest.fixture
def far(_clear):
    """A stand-in in clear text, without any history."""
    yield from _checked(_clear)


@pytest.fixture
def far_tls(_tls):
    """A stand-in with TLS on both ports, without any history."""
    yield from _checked(_tls)
