"""Fixtures of the status page's tests: those of tests/integration, and a browser."""
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for place in (HERE, HERE.parent, HERE.parent / 'integration'):
    sys.path.insert(0, str(place))

from browser import CHROMIUM, Browser                      # noqa: E402
from gateway import Gateway                                # noqa: E402
from standin.harness import Harness                        # noqa: E402

os.environ.setdefault('TZ', 'UTC')


def _fixtures():
    """Those of tests/integration/conftest.py, which is no module by this name here."""
    import importlib.util
    spec = importlib.util.spec_from_file_location('integration_conftest', HERE.parent / 'integration' / 'conftest.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_others = _fixtures()
ca, far, gateway_at, gw, api = (getattr(_others, name) for name in ('ca', 'far', 'gateway_at', 'gw', 'api'))


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """A gateway for tests that only look, each at streams of its own."""
    with Harness() as harness, Gateway(tmp_path_factory.mktemp('shared'), harness.url) as gateway:
        yield gateway


@pytest.fixture(scope='session')
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.fail('there is no chromium: tests/deps.sh install test')
    b = Browser(tmp_path_factory.mktemp('chromium'))
    yield b
    b.close()


@pytest.fixture
def open_page(browser):
    """Opens the page of a gateway; at the end nothing may have gone wrong in it, and no request left its origin."""
    opened = []

    def make(gw, live=True, **how):
        page = browser.page(**how)
        origin = f'http://127.0.0.1:{gw.ports["admin"]}'
        opened.append((page, origin))
        page.go(origin + '/')
        if live:
            page.wait('document.getElementById("live").textContent === "live"', what='the first event')
        return page

    yield make
    for page, origin in opened:
        errors, requests = page.errors, page.requests
        page.close()
        assert errors == []
        assert requests and [r for r in requests if not r.startswith(origin + '/')] == []
