"""Fixtures: certificates, the stand-in Harness (far side) and tailrace itself."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.dirname(HERE))

from calls import Api                      # noqa: E402
from gateway import Gateway                # noqa: E402
from standin.certs import CA               # noqa: E402
from standin.harness import Harness        # noqa: E402
from standin.nursery import Nursery        # noqa: E402

Harness.nursery = Nursery()


def pytest_configure(config):
    config.addinivalue_line('markers', 'once: not with the sanitizers too: it starts no gateway, but looks at texts and answers '
                            'of programs without threads, or at nothing but time that passes')
    config.addinivalue_line('markers', 'upgrade: not with the thread sanitizer: the successor, in the sandbox, cannot read its suppressions')


@pytest.fixture(scope='session')
def ca(tmp_path_factory):
    return CA(tmp_path_factory.mktemp('ca'))


@pytest.fixture
def far():
    """A stand-in Harness in clear text; whatever a test does to it, it must not have failed itself."""
    with Harness() as harness:
        yield harness
        harness.start()
        assert harness.state(lines=False)['errors'] == []


@pytest.fixture
def gateway_at(tmp_path):
    """Makes gateways: gateway_at(far.url, spool={...}, ...); each is stopped and looked through at the end."""
    made = []

    def make(url, name=None, **options):
        g = Gateway(tmp_path / (name or f'tailrace{len(made)}'), url, **options)
        made.append(g)
        return g

    yield make
    problems = []
    for g in made:
        try:
            g.close()
        except AssertionError as e:
            problems.append(str(e))
    assert not problems, '\n'.join(problems)


@pytest.fixture
def gw(far, gateway_at):
    """A gateway in front of `far`, both in clear text."""
    return gateway_at(far.url)


@pytest.fixture
def api(gw):
    a = Api(gw.log_url)
    yield a
    a.close()
