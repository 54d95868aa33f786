"""The installed binary under test: writes a configuration, runs it, and asks it what it did.

`TAILRACE` names the binary; without it the one of the build tree that runs the tests is used. With `TAILRACE_SEALED`
every spool is sealed."""
import http.client
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

BINARY = os.environ.get('TAILRACE', 'tailrace')

# How much longer everything may take than it should: under a sanitizer, or beside other work.
SLOW = float(os.environ.get('SLOW', '1'))
READY_TIMEOUT = 30
STOP_TIMEOUT = 40 * SLOW

# What must never stand in a log, whoever wrote it.
ALARMS = re.compile(r'tailrace: bug at|ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error:|'
                    r'WARNING: ThreadSanitizer|level=error component=bug')


def wait_for(condition, timeout=15, every=0.02, what='the condition'):
    """Poll `condition` until it is true and return its value; AssertionError after `timeout` times SLOW."""
    timeout *= SLOW
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f'{what} did not come true within {timeout} s')
        time.sleep(every)


def to_yaml(value, indent=0):
    """Plain YAML of dicts, lists and scalars; no library, so that nothing is quoted by surprise."""
    pad = '  ' * indent
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                lines.append(f'{pad}{key}:\n{to_yaml(item, indent + 1)}')
            else:
                lines.append(f'{pad}{key}: {scalar(item)}\n')
        return ''.join(lines)
    return ''.join(f'{pad}- {scalar(item)}\n' for item in value)


def scalar(item):
    if isinstance(item, bool):
        return 'true' if item else 'false'
    if isinstance(item, (int, float)):
        return str(item)
    return '"' + str(item).replace('\\', '\\\\').replace('"', '\\"') + '"'


def merge(base, over):
    out = dict(base)
    for key, item in over.items():
        out[key] = merge(out[key], item) if isinstance(item, dict) and isinstance(out.get(key), dict) else item
    return out


class Other:
    """A process that is not our child, as far as subprocess.Popen's users need it. Its exit status is taken for 0."""

    def __init__(self, pid):
        self.pid, self.fd, self.returncode = pid, os.pidfd_open(pid), None

    def poll(self):
        return self.wait(0, quiet=True)

    def wait(self, timeout=None, quiet=False):
        if self.returncode is None and select.select([self.fd], [], [], timeout)[0]:
            os.close(self.fd)
            self.returncode = 0
        if self.returncode is None and not quiet:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode

    def send_signal(self, signo):
        if self.poll() is None:
            signal.pidfd_send_signal(self.fd, signo)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Gateway:
    """One tailrace process. `options` are merged into a configuration that listens on free ports of 127.0.0.1."""

    def __init__(self, directory, harness_url, *, cert=None, key=None, env=None, start=True, **options):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path = self.directory / 'log'
        self.config_path = self.directory / 'tailrace.yaml'
        listen = {'address': '127.0.0.1:0'}
        if cert:
            listen.update(certificate=str(cert), key=str(key))
        self.tls = bool(cert)
        self.options = merge({
            'harness': {'url': harness_url},
            'listen': {'upstream': listen, 'admin': {'address': '127.0.0.1:0'}},
            'spool': {'directory': str(self.directory / 'spool'), 'limit': '512MiB'},
            'log': {'level': 'debug'},
            'drain': {'limit': '10s'},
        }, options)
        if os.environ.get('TAILRACE_SEALED') and 'key' not in self.options['spool']:
            seal = self.directory / 'sealed-with'
            seal.touch(0o600)
            seal.write_text(os.urandom(32).hex())
            self.options['spool']['key'] = str(seal)
        self.env = dict(os.environ, **(env or {}))
        self.process = None
        self.before = []        # processes that handed over and may have connections left
        self.ports = {}
        if start:
            self.start()

    # --- life ------------------------------------------------------------------------------

    def write_config(self, **options):
        self.options = merge(self.options, options)
        self.config_path.write_text(to_yaml(self.options))

    def start(self, wait=True):
        """Start (again, on the same ports if it ran before)."""
        for name, port in self.ports.items():
            self.options['listen'][name]['address'] = f'127.0.0.1:{port}'
        self.write_config()
        self.process = self.run()
        if wait:
            self.wait_ready()
        return self

    def run(self, *more, env=None):
        self.log_from = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, 'ab') as log:
            return subprocess.Popen(
                shlex.split(os.environ.get('TAILRACE_WRAPPER', '')) + [BINARY, 'serve', '-c', str(self.config_path), *more],
                stderr=log, stdout=log, stdin=subprocess.DEVNULL, env=dict(self.env, **(env or {})))

    def take_over(self, by_signal=False, wait=True, env=None, **options):
        """Hand over to a new process, with other options perhaps: `self.process` is that one afterwards."""
        self.write_config(**options)
        old = self.process
        if by_signal:
            self.log_from = self.log_path.stat().st_size
            old.send_signal(signal.SIGUSR2)
            pid = wait_for(lambda: re.search(r'"handing over" pid=(\d+)', self.log(fresh=True)), what='the new process')
            new = Other(int(pid.group(1)))
        else:
            new = self.run('--takeover', env=env)
        if wait:
            self.before.append(old)
            self.process = new
            self.taken_over()
        return new

    def taken_over(self):
        """Wait until the new process serves."""
        wait_for(lambda: 'msg="taken over"' in self.log(fresh=True) and 'msg="handed over' in self.log(fresh=True),
                 READY_TIMEOUT, what='the takeover')
        self.wait_ready()

    def gap_ms(self):
        """How long nobody accepted during the last takeover."""
        return int(re.findall(r'not_accepting_ms=(\d+)', self.log())[-1])

    def wait_ready(self):
        def ports():
            if self.process.poll() is not None:
                raise AssertionError(f'tailrace ended with {self.process.returncode}:\n{self.log()[-4000:]}')
            found = dict(re.findall(r'listening.*?listener=(\S+) address=\S+:(\d+)', self.log(fresh=True)))
            return len(found) == len(self.options['listen']) and found

        self.ports = {name: int(port) for name, port in
                      wait_for(ports, READY_TIMEOUT, what='listening').items()}
        wait_for(lambda: self.get('/readyz')[0] == 200, READY_TIMEOUT, what='/readyz')

    def signal(self, signo):
        self.process.send_signal(signo)

    def kill(self):
        """As a crash would."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT)

    def stop(self, timeout=STOP_TIMEOUT, patience=None):
        """Drain and end; returns the exit status. After `patience` it is told a second time, and ends at once."""
        for old in self.before:
            if old.poll() is None:
                old.send_signal(signal.SIGTERM)
        while self.before:
            code = self.before[0].wait(timeout)
            assert code == 0, f'a process that had handed over ended with {code}:\n{self.log()[-3000:]}'
            self.before.pop(0)
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            if patience is not None:
                try:
                    self.process.wait(patience)
                except subprocess.TimeoutExpired:
                    if self.get('/healthz')[0]:     # it drains; nobody catches signals any more when it has
                        self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError('tailrace did not end within %d s' % timeout)
        return self.process.returncode

    def close(self):
        """Stop, and fail if it ended badly or logged a bug or a sanitizer's report. What upstream has not taken by the end
        of a test is not waited for."""
        code = self.stop(patience=1.5 * SLOW)
        alarm = ALARMS.search(self.log())
        assert not alarm, self.log()[max(0, alarm.start() - 500):alarm.start() + 4000]
        assert code in (0, -signal.SIGKILL), f'exit status {code}:\n{self.log()[-3000:]}'

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if exc[0] is None:
            self.close()
        else:
            self.kill()

    # --- looking at it ---------------------------------------------------------------------

    @property
    def pid(self):
        return self.process.pid

    @property
    def port(self):
        return self.ports['upstream']

    @property
    def url(self):
        """What a client is told as its upstream."""
        return f'{"https" if self.tls else "http"}://127.0.0.1:{self.port}'

    @property
    def log_url(self):
        return self.url + '/log-service'

    def log(self, fresh=False):
        """All it ever logged; `fresh`: since the last start."""
        if not self.log_path.exists():
            return ''
        with open(self.log_path, 'rb') as f:
            f.seek(self.log_from if fresh else 0)
            return f.read().decode('utf-8', 'replace')

    def get(self, path, headers=None):
        """GET from the admin listener: (status, text); (0, '') while it does not answer."""
        conn = http.client.HTTPConnection('127.0.0.1', self.ports.get('admin', 0), timeout=10)
        try:
            conn.request('GET', path, headers=headers or {})
            answer = conn.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ''
        finally:
            conn.close()

    def metrics(self):
        """{'name{labels}': value} without the prefix tailrace_."""
        out = {}
        for line in self.get('/metrics')[1].splitlines():
            if line and not line.startswith('#'):
                name, value = line.rsplit(' ', 1)
                out[name.removeprefix('tailrace_')] = float(value)
        return out

    def metric(self, name, default=0.0, **labels):
        """The sum of a family's series whose labels match."""
        total, seen = 0.0, False
        for series, value in self.metrics().items():
            base, _, rest = series.partition('{')
            have = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            if base == name and all(have.get(k) == v for k, v in labels.items()):
                total, seen = total + value, True
        return total if seen else default

    def ledger(self, family='lines'):
        """{state: count}; asserts that it balances."""
        out = {}
        for series, value in self.metrics().items():
            found = re.fullmatch(r'ledger_%s\{state="(\w+)"\}' % family, series)
            if found:
                out[found.group(1)] = int(value)
        parts = sum(v for k, v in out.items() if k != 'accepted')
        assert out and out['accepted'] == parts, out
        return out

    def wait_delivered(self, timeout=20):
        """Until nothing waits in the spool."""
        wait_for(lambda: self.ledger()['spooled'] == 0 and self.ledger('blobs')['spooled'] == 0, timeout,
                 what='delivery')

    def rss_kb(self, peak=False):
        text = Path(f'/proc/{self.pid}/status').read_text()
        return int(re.search(r'%s:\s+(\d+)' % ('VmHWM' if peak else 'VmRSS'), text).group(1))

    def fds(self):
        return len(os.listdir(f'/proc/{self.pid}/fd'))

    def fd_list(self):
        """What its descriptors are; sockets with state and ports."""
        socks = {}
        for line in Path(f'/proc/{self.pid}/net/tcp').read_text().splitlines()[1:]:
            f = line.split()
            socks[f'socket:[{f[9]}]'] = f'{int(f[1][-4:], 16)}-{int(f[2][-4:], 16)} state={f[3]} queues={f[4]}'
        out = []
        for fd in os.listdir(f'/proc/{self.pid}/fd'):
            try:
                link = os.readlink(f'/proc/{self.pid}/fd/{fd}')
            except OSError:
                continue
            out.append(socks.get(link, link))
        return sorted(out)


def free_port():
    """A port that nothing listens on now."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def key(name='step', run=1):
    """A key as the platform makes them (HP §1.11)."""
    return (f'accountId:acct/orgId:default/projectId:p/pipelineId:b/runSequence:{run}/level0:pipeline/'
            f'level1:stages/level2:s/level3:spec/level4:execution/level5:steps/level6:{name}')
