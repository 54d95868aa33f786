"""What the long tests share: the load client, what it was promised, and samples of the ledger."""
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / 'integration')]

from gateway import Gateway, wait_for         # noqa: E402,F401
from standin.harness import Harness           # noqa: E402,F401

LOAD = os.environ.get('LOAD', 'tests/tools/load')


class Load:
    """A running load client. Keyword arguments are its options."""

    def __init__(self, url, ack, **options):
        self.ack = Path(ack)
        argv = [LOAD, '--url', url, '--ack', str(ack)]
        for name, value in options.items():
            name = '--' + name.replace('_', '-')
            argv += [name] if value is True else [name, str(value)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    @property
    def running(self):
        return self.process.poll() is None

    def stop(self):
        if self.running:
            self.process.terminate()

    def result(self, timeout):
        """Its summary, when it has ended by itself."""
        try:
            out, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError('the load client did not end within %d s' % timeout)
        return json.loads(out)


class Step:
    def __init__(self, kind, key):
        self.kind, self.key = kind, key
        self.acked = set()          # sequence numbers
        self.opened = self.closed = False
        self.blob = None            # (bytes, sha256) of an acknowledged upload
        self.failed = []


def promised(ack, until=None):
    """{id: Step} from a file of the load client; `until`: only what bears no greater mark."""
    steps = {}
    for line in Path(ack).read_text().splitlines():
        word = line.split()
        if until is not None and int(word[-1].lstrip('@')) > until:
            break
        if word[0] == 'step':
            steps.setdefault(int(word[1]), Step(word[2], word[3]))
            continue
        step = steps[int(word[1])]
        if word[0] == 'put':
            step.acked.update(range(int(word[2]), int(word[2]) + int(word[3])))
        elif word[0] == 'blob':
            step.blob = int(word[2]), word[3]
        elif word[0] == 'open':
            step.opened = True
        elif word[0] == 'close':
            step.closed = True
        elif word[0] == 'fail':
            step.failed.append(' '.join(word[2:]))
    return steps


def sequence(outs, number):
    """The sequence numbers in lines of a step; a line of another step is an error."""
    found = []
    for out in outs:
        match = re.match(r's(\d+) (\d+)[ \n]', out)
        assert match and int(match[1]) == number, (number, out[:40])
        found.append(int(match[2]))
    return found


def disorder(numbers):
    """(out of order, repeated): first arrivals must rise; a later arrival is a repetition."""
    seen, top, wrong, repeated = set(), -1, 0, 0
    for n in numbers:
        if n in seen:
            repeated += 1
            continue
        seen.add(n)
        wrong += n < top
        top = max(top, n)
    return wrong, repeated


def ledgers(gateway):
    """({state: lines}, {state: blobs}) of one scrape, or None while it does not answer."""
    try:
        text = gateway.get('/metrics')[1]
    except http.client.HTTPException:       # killed in the middle of it
        return None
    out = []
    for family in ('lines', 'blobs'):
        rows = re.findall(r'^tailrace_ledger_%s\{state="(\w+)"\} (\S+)$' % family, text, re.M)
        if not rows:
            return None
        out.append({state: int(float(value)) for state, value in rows})
    return out


def balance(ledger):
    """accepted minus the sum of the other states: 0 when it balances."""
    return ledger['accepted'] - sum(v for k, v in ledger.items() if k != 'accepted')


class Sampler:
    """Looks at a gateway once a second, in a thread, until it is stopped."""

    def __init__(self, gateway, every=1.0):
        self.gateway, self.every = gateway, every
        self.samples, self.unbalanced, self.peak_kb = 0, [], 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        due = time.monotonic() + self.every
        while not self.done.wait(max(0, due - time.monotonic())):
            self.look()
            due = max(due + self.every, time.monotonic())   # a slow look makes the next pause shorter

    def look(self):
        found = ledgers(self.gateway)
        if found is None:
            return
        self.samples += 1
        for ledger in found:
            if balance(ledger):
                self.unbalanced.append(ledger)
        try:
            self.peak_kb = max(self.peak_kb, self.gateway.rss_kb(peak=True))
        except OSError:
            pass

    def stop(self):
        self.done.set()
        self.thread.join()


class Disk:
    """Makes 8 KiB durable ten times a second: what no acknowledgement can be faster than, then and there."""

    def __init__(self, directory):
        self.path = Path(directory) / 'disk-probe'
        self.took, self.done = [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        fd = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600)
        while not self.done.wait(0.1):
            start = time.perf_counter()
            os.pwrite(fd, b'x' * 8192, len(self.took) % 100 * 8192)
            os.fdatasync(fd)
            self.took.append((time.perf_counter() - start) * 1000)
        os.close(fd)
        self.path.unlink()

    def stop(self):
        """"p50 .., p99 .., max .. ms" """
        self.done.set()
        self.thread.join()
        took = sorted(self.took) or [0]
        return 'p50 %.1f, p99 %.1f, max %.1f ms' % (took[len(took) // 2], took[len(took) * 99 // 100], took[-1])


def progress(text):
    print('%s %s' % (time.strftime('%H:%M:%S'), text), flush=True)
