"""One sandbox for all commands that only look, and a new one for each that does not leave it as it was."""
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'integration'), str(HERE.parent)]

from sandbox import Sandbox                 # noqa: E402
from standin.harness import Harness         # noqa: E402


@pytest.fixture(scope='session')
def make_sandbox(tmp_path_factory):
    made = []

    def make():
        far = Harness()
        made.append(far)
        box = Sandbox(tmp_path_factory.mktemp('docs'), far)
        made.append(box)
        return box

    yield make
    for thing in reversed(made):
        thing.close()


@pytest.fixture(scope='session')
def shared(make_sandbox):
    return make_sandbox()
