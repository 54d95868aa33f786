"""The unit for systemd: what it gives away is little, and what it leaves is enough."""
import base64
import ctypes
import mmap
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import under_filter
from calls import Api
from frames import sanitized
from gateway import BINARY, Gateway, key, wait_for
from proxies import RULES, Trail, echo, place, read_exactly, status_of, tunnel
from standin.certs import CA

UNIT = Path(__file__).resolve().parents[2] / 'contrib' / 'systemd' / 'tailrace.service'
FILTER = Path(under_filter.__file__)
ROOT = os.geteuid() == 0

pytestmark = pytest.mark.skipif(not shutil.which('systemd-analyze'), reason='without systemd-analyze')


def analyze(*args):
    return subprocess.run(['systemd-analyze', *args], capture_output=True, text=True, timeout=60)


@pytest.mark.once
@pytest.mark.parametrize('drop_in, most', [(None, 1.6), ('high-ports.conf', 1.2)])
def test_exposure_is_low(tmp_path, drop_in, most):
    (tmp_path / UNIT.name).write_text(UNIT.read_text() + ((UNIT.parent / drop_in).read_text() if drop_in else ''))
    done = analyze('security', '--offline=true', str(tmp_path / UNIT.name))
    found = re.search(r'Overall exposure level for \S+: ([\d.]+)', done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found.group(1)) <= most, done.stdout


@pytest.mark.once
def test_the_unit_has_no_mistakes(tmp_path):
    """With the program where the unit says it is. Its manual pages are there once it is installed."""
    text = UNIT.read_text().replace('/usr/sbin/tailrace', '/bin/true')
    (tmp_path / UNIT.name).write_text(text)
    done = analyze('verify', '--man=no', str(tmp_path / UNIT.name))
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not complaints, complaints


def ends_as(call):
    """How a process ends that does this behind the filter: 0, or the signal."""
    pid = os.fork()
    if pid == 0:
        try:
            under_filter.restrict(UNIT)
            call()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1] & 0x7f


@pytest.mark.parametrize('call', [
    lambda: os.chroot('/'), lambda: os.chown('/nowhere', 0, 0), lambda: os.nice(1), lambda: os.setuid(0), 
    lambda: ctypes.CDLL(None).setns(0, 0), lambda: ctypes.CDLL(None).ptrace(0, 0, 0, 0),
    lambda: ctypes.CDLL(None).unshare(0x10000000), lambda: ctypes.CDLL(None).mount(0, 0, 0, 0, 0),
    lambda: ctypes.CDLL(None).fanotify_init(0, 0),
    lambda: socket.socket(socket.AF_PACKET), lambda: socket.socket(socket.AF_VSOCK),
    lambda: ctypes.CDLL(None).mmap(None, 4096, mmap.PROT_WRITE | mmap.PROT_EXEC, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)],
    ids=['chroot', 'chown', 'nice', 'setuid', 'setns', 'ptrace', 'unshare', 'mount', 'fanotify', 'packet', 'vsock', 'write-exec'])
def test_the_filter_bites(call):
    """What is not in the unit's list kills; else the test below would say nothing."""
    assert ends_as(call) == signal.SIGSYS
    assert ends_as(lambda: os.stat('/')) == 0


@pytest.fixture
def home():
    """A directory for the gateway's files and a copy of the program, and how to run it: as nobody, if we are root."""
    user = 'nobody' if ROOT else pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory(prefix='tailrace-service-') as d:
        directory = Path(d)
        binary = shutil.copy(shutil.which(BINARY) or BINARY, directory)
        directory.chmod(0o755)
        (directory / 'gw').mkdir()
        wrapper = [sys.executable, str(FILTER), str(UNIT)] + (['--user', user] if ROOT else [])

        def give():
            for path in [directory / 'gw', *(directory / 'gw').rglob('*')] if ROOT else []:
                shutil.chown(path, user)
        yield directory / 'gw', binary, wrapper, give


def users_file(path):
    path.write_text(''.join(f'{name}:' + subprocess.run(['openssl', 'passwd', '-6', password], capture_output=True,
                                                        text=True, check=True).stdout for name, password in [('ci', 'secret')]))
    path.chmod(0o600)


@pytest.mark.skipif(sanitized(), reason='sanitizers make calls of their own')
def test_it_serves_under_the_filter(far, home, monkeypatch):
    """Logs, blobs, tunnels of much and little, TLS, credentials, a reload, a takeover by signal, a drain: nothing that the unit does not allow."""
    directory, binary, wrapper, give = home
    monkeypatch.setattr('gateway.BINARY', binary)
    monkeypatch.setenv('TAILRACE_WRAPPER', ' '.join(wrapper))
    ca = CA(directory, 'a CA')
    cert, cert_key = ca.issue('127.0.0.1')
    users_file(directory / 'users')
    gw = Gateway(directory, far.url, start=False, workers=2, **{
        'listen': {'proxy': {'address': '127.0.0.1:0', 'users': str(directory / 'users')},
                   'open': {'mode': 'proxy', 'address': '127.0.0.1:0'},
                   'tls': {'mode': 'upstream', 'address': '127.0.0.1:0', 'certificate': cert, 'key': cert_key},
                   'engine': {'mode': 'grpc', 'address': '127.0.0.1:0', 'to': 'http://127.0.0.1:9'},
                   'sni': {'address': '127.0.0.1:0'}, 'forward': {'address': '127.0.0.1:0', 'to': '127.0.0.1:9'}},
        'intercept': {'ca': ca.ca, 'key': ca.ca_key, 'hosts': ['app.harness.test']},
        'audit': {'to': 'file', 'file': str(directory / 'audit')}, 'rules': RULES, 'drain': {'limit': '3s'},
        'upstream': {'ca': ca.ca}})
    give()
    with gw:
        gw.start()
        assert 'Seccomp:\t2\n' in Path(f'/proc/{gw.pid}/status').read_text()
        exercise(gw, far, directory)
        gw.take_over(True)
        assert 'Seccomp:\t2\n' in Path(f'/proc/{gw.pid}/status').read_text()
        exercise(gw, far, directory, 'second')
        gw.kill()
        gw.start()
        far_lines(gw, far, 'after')


def far_lines(gw, far, name):
    """A whole step, with a log that is compressed in the pool and uploaded by a link."""
    api = Api(gw.log_url)
    k = key(name)
    log = b''.join(b'{"out":"%d"}\n' % i for i in range(40000))
    assert api.open(k)[0] < 300
    assert api.put(k, *[f'line {i}' for i in range(100)])[0] < 300
    assert api.put_link(k, log)[0] < 300
    assert api.delete(k)[0] < 300
    api.close()
    gw.wait_delivered()
    far.wait(lambda h: h.blob('acct', k), timeout=10)


def exercise(gw, far, directory, name='first'):
    far_lines(gw, far, name)
    with place(echo) as p:
        with tunnel(gw, f'127.0.0.1:{p.port}', listener='open') as s:
            s.sendall(b'x')
            assert s.recv(1) == b'x'
            s.settimeout(20)
            for _ in range(16):                         # enough to be spliced
                s.sendall(b'y' * (1 << 19))
                read_exactly(s, 1 << 19)
        assert status_of(gw, f'127.0.0.1:{p.port}') == 407
        word = base64.b64encode(b'ci:secret').decode()
        assert status_of(gw, f'127.0.0.1:{p.port}', f'Proxy-Authorization: Basic {word}') == 200
    assert status_of(gw, 'denied.test:443', listener='open') == 403
    assert gw.get('/metrics')[0] == 200
    generation = gw.metric('config_generation')
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') == generation + 1)
    assert Trail(directory / 'audit').path.stat().st_size > 0
