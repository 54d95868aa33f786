"""One machine for all tests here; without root, namespaces or systemd each test is skipped, and says why."""
import os
import shutil
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), 'integration'), os.path.dirname(HERE)]

from frames import sanitized                # noqa: E402
from machine import SYSTEMD, Machine, Service    # noqa: E402
from standin.harness import Harness         # noqa: E402


def obstacle():
    """Why there can be no machine here, or None."""
    if os.geteuid():
        return 'needs root'
    if not os.path.exists(SYSTEMD):
        return 'no systemd'
    for tool in ('unshare', 'nsenter', 'ip', 'systemd-sysusers'):
        if not shutil.which(tool):
            return 'no ' + tool
    return 'sanitizers make calls that the unit does not allow' if sanitized() else None


@pytest.fixture(scope='session')
def machine():
    why = obstacle()
    if why:
        pytest.skip(why)
    try:
        made = Machine()
    except OSError as e:
        pytest.skip(f'no machine of our own: {e}')
    yield made
    made.close()


@pytest.fixture
def far(machine):
    with Harness() as harness:
        yield harness
        assert harness.state(lines=False)['errors'] == []


@pytest.fixture
def service_at(machine):
    """Makes services: service_at(far.url, drop_in='', sockets=False, ...); stopped and looked through at the end."""
    made = []

    def make(url, start=True, **options):
        made.append(Service(machine, url, **options))
        return made[-1].start() if start else made[-1]
    yield make
    for service in made:
        service.close()
