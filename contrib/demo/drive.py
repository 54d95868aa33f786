"""Drives the demo: a stand-in Harness, tailrace in front of it, and many build steps that log through it.

    drive.py --tailrace BINARY --text BUILD-LOG --directory DIR [--steps 120] [--seconds 40]
             [--outage 10] [--keep]

The directory is emptied first. The last line is `demo: N lines in, N stored, 0 lost`; the exit status
is 0 only if every stored log equals what its step printed."""
import argparse
import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / 'tests'), str(TOP / 'tests' / 'integration')]

import gateway                                          # noqa: E402
from standin.certs import CA                            # noqa: E402
from standin.harness import Harness                     # noqa: E402

import report                                           # noqa: E402
from fleet import ACCOUNT, Delegate, Fleet, make_plans  # noqa: E402

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOG_MOST = 20000                # requests that the stand-in remembers one by one
EMPTY_TIMEOUT = 60              # seconds after the last step for everything to have been delivered


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--tailrace', required=True, help='the binary')
    parser.add_argument('--text', required=True, help='a file whose lines the steps print')
    parser.add_argument('--directory', required=True, help='for certificates, configuration, spool, logs')
    parser.add_argument('--steps', type=int, default=120)
    parser.add_argument('--seconds', type=float, default=40)
    parser.add_argument('--outage', type=float, default=10)
    parser.add_argument('--keep', action='store_true', help='leave tailrace and the stand-in running')
    return parser.parse_args()


class Far(Harness):
    """The stand-in Harness; one that is kept outlives this program."""

    def __init__(self, keep, log, **options):
        self.keep, self.log_file = keep, log
        super().__init__(**options)

    def _start_process(self, argv):
        if not self.keep:
            return super()._start_process(argv)
        env = dict(os.environ, PYTHONPATH=str(TOP / 'tests'))
        with open(self.log_file, 'ab') as log:
            self.process = subprocess.Popen([sys.executable, '-m', 'standin.harness'] + argv, env=env,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                            start_new_session=True)
        return json.loads(self.process.stdout.readline())


class Demo:
    """Both processes, what is sent through them, and what was seen meanwhile."""

    def __init__(self, args):
        self.args = args
        self.directory = Path(args.directory).resolve()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.far = self.gate = self.fleet = self.delegate = None
        self.begun = time.monotonic()
        self.cut_at = self.back_at = self.caught_up_at = None
        self.ledger, self.peak = {}, 0
        self.spool_plain = self.spool_packed = 0
        self.samples = self.unbalanced = 0

    # --- life ------------------------------------------------------------------------------------

    def start(self):
        ca = CA(self.directory, 'demo CA')
        pair = ca.issue('127.0.0.1')
        self.ca = ca.ca
        self.far = Far(self.args.keep, self.directory / 'standin.log', tls=pair, store_tls=True)
        self.note_pid(self.far.process.pid)
        self.gate = gateway.Gateway(
            self.directory / 'tailrace', self.far.url, cert=pair[0], key=pair[1], start=False,
            upstream={'ca': self.ca}, log={'level': 'info'})
        self.gate.start(wait=False)
        self.note_pid(self.gate.pid)
        self.gate.wait_ready()

    def note_pid(self, pid):
        """For demo.sh, which ends what is left if this program is killed."""
        with open(self.directory / 'pids', 'a') as out:
            out.write(f'{pid}\n')

    def stop(self):
        try:
            if self.gate is not None:
                self.gate.close()
        finally:
            if self.gate is not None:
                self.gate.kill()
            if self.far is not None:
                self.far.close()
        (self.directory / 'pids').unlink(missing_ok=True)

    def leave(self):
        """Both go on; the next demo ends them."""
        (self.directory / 'pids').rename(self.directory / 'kept')

    # --- the run ---------------------------------------------------------------------------------

    async def run(self):
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, asyncio.current_task().cancel)
        text = [line for line in Path(self.args.text).read_text('utf-8', 'replace').split('\n') if line]
        text = [line + '\n' for line in text]
        plans = make_plans(text, self.args.steps, self.args.seconds)
        print(f'demo: {len(plans)} steps print {sum(len(p.lines) for p in plans):,} lines of this build '
              f'({len(text):,} lines, {report.size(sum(len(x.encode()) for x in text))}) within '
              f'{self.args.seconds:.0f} s; upstream is cut off for {self.args.outage:.0f} s of them', flush=True)
        self.fleet = Fleet(plans, self.gate.log_url, self.ca)
        self.delegate = Delegate(self.gate.url, self.ca)
        self.begun = time.monotonic()
        self.delegate.start()
        outage = asyncio.ensure_future(self.outage())
        watch = asyncio.ensure_future(self.watch())
        try:
            await self.fleet.run()
            await outage
            await self.empty()
        finally:
            watch.cancel()
            outage.cancel()
            self.fleet.close()
            await self.delegate.stop()

    async def aside(self, function, *args, **more):
        """A blocking call beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(None, lambda: function(*args, **more))

    async def outage(self):
        """Upstream refuses every new connection and resets those it has, but for the delegate's WebSocket:
        an established tunnel outlives what keeps requests out."""
        await asyncio.sleep(self.args.seconds * 0.4)
        await self.aside(self.far.stop, drop='requests')
        self.cut_at = time.monotonic()
        await asyncio.sleep(self.args.outage)
        await self.aside(self.look_into_spool)
        await self.aside(self.far.start)
        self.back_at = time.monotonic()

    def look_into_spool(self):
        """How well the records that wait are compressed: their size as stored and as they came."""
        import zstandard
        path = self.directory / 'tailrace' / 'spool' / 'spool.db'
        with sqlite3.connect(f'file:{path}?mode=ro', uri=True, timeout=5) as spool:
            for (body,) in spool.execute('SELECT body FROM record WHERE body IS NOT NULL AND blob = 0'):
                if body[:4] == b'\x28\xb5\x2f\xfd':
                    self.spool_plain += zstandard.get_frame_parameters(body).content_size
                    self.spool_packed += len(body)

    async def watch(self):
        """A line a second."""
        head = ('   time  upstream  steps  lines in     acked  delivered   spooled  superseded  ack p99  '
                'WebSocket')
        print(head, flush=True)
        while True:
            await asyncio.sleep(1)
            await self.aside(self.sample)
            print(self.line(), flush=True)

    def sample(self):
        self.samples += 1
        try:
            self.ledger = self.gate.ledger()
        except AssertionError:
            self.unbalanced += 1
            return
        self.peak = max(self.peak, self.ledger['spooled'])
        if self.back_at and not self.caught_up_at and self.ledger['spooled'] < 500:
            self.caught_up_at = time.monotonic()

    def line(self):
        down = self.cut_at and not self.back_at
        recent = sorted(r.latency for r in self.fleet.calls('lines')[-500:])
        led = self.ledger or {'delivered': 0, 'spooled': 0, 'superseded': 0}
        return (f'  {time.monotonic() - self.begun:4.0f} s  {"CUT OFF" if down else "up":8}  '
                f'{self.fleet.running:5}  {self.fleet.lines_in:8,}  {self.fleet.acked:8,}  '
                f'{led["delivered"]:9,}  {led["spooled"]:8,}  {led["superseded"]:10,}  '
                f'{report.millis(report.quantile(recent, 0.99)):>7}  '
                f'{"open" if self.delegate.open else "closed"}, {self.delegate.answered} beats answered')

    async def empty(self):
        """Until everything accepted has arrived."""
        end = time.monotonic() + EMPTY_TIMEOUT
        while time.monotonic() < end:
            waiting = await self.aside(self.waiting)
            if not waiting:
                return
            await asyncio.sleep(0.1)
        print(f'demo: after {EMPTY_TIMEOUT} s still waiting: {waiting}')

    def waiting(self):
        lines, blobs = self.gate.ledger(), self.gate.ledger('blobs')
        streams = self.far.counts()['streams']
        if lines['spooled'] or blobs['spooled'] or streams:
            return (f'{lines["spooled"]} lines and {blobs["spooled"]} blobs in the spool, '
                    f'{streams} streams open upstream')
        return None

    # --- the end ---------------------------------------------------------------------------------

    def summary(self):
        """Prints what was measured; returns whether nothing was lost."""
        verdict = report.Verdict()
        verdict.compare(self.far, ACCOUNT, self.fleet.plans)
        metrics, counts = self.gate.metrics(), self.far.counts()
        self.ledger = self.gate.ledger()
        print()
        print(report.table([
            ('went in', self.text_in(verdict)), ('went out', self.text_out(metrics, counts)),
            ('harm done', self.text_harm(counts)),
            ('compression', self.text_compression()), ('ack latency', self.text_latency(metrics)),
            ('outage', self.text_outage()), ('WebSocket', self.text_socket())]))
        print('\n  ledger of lines\n')
        self.print_ledger()
        print()
        self.print_verdict(verdict)
        good = verdict.lost == 0 and not verdict.problems and not self.unbalanced and not counts['wipes']
        if self.args.keep:
            self.print_kept()
        print(f'demo: {verdict.lines_in} lines in, {verdict.stored} stored, {verdict.lost} lost', flush=True)
        return good

    def text_in(self, verdict):
        calls = self.fleet.calls()
        lines = [r for r in calls if r.call == 'lines']
        logs = [r for r in calls if r.call in ('blob', 'upload')]
        failed = [r for r in calls if not r.ok]
        return (f'{verdict.lines_in:,} lines ({report.size(sum(r.size for r in lines))}) in {len(lines):,} calls, '
                f'{len(logs)} finished logs ({report.size(sum(r.size for r in logs))}); {len(calls):,} calls in all '
                f'from {len(self.fleet.plans)} steps, {len(failed)} failed')

    def text_out(self, metrics, counts):
        sent = int(sum(v for k, v in metrics.items() if k.startswith('upstream_requests_total{')))
        seen = self.far.log()
        size = f' ({report.size(sum(entry["body_len"] for entry in seen))})' if len(seen) < LOG_MOST else ''
        out = int(sum(v for k, v in metrics.items()
                      if k.startswith('upstream_requests_total{call="lines"') and 'code="none"' not in k))
        calls = self.fleet.calls('lines')
        return (f'{self.ledger["delivered"]:,} lines live, the logs, and all else in {sent:,} requests{size}; '
                f'calls with lines: {len(calls):,} in, {out:,} out ({report.ratio(len(calls), out)})')

    @staticmethod
    def text_harm(counts):
        return (f'opens that wiped a stream: {counts["wipes"]}; tokens shown to the object store: '
                f'{counts["leaks"]}')

    def text_compression(self):
        blobs = [b for b in self.far.state(lines=False)['blobs'].values() if b['via'] == 'put-object']
        packed = [b for b in blobs if b['encoding'] == 'gzip']
        plain, stored = (sum(b[k] for b in packed) for k in ('content_size', 'size'))
        return (f'spool {report.ratio(self.spool_plain, self.spool_packed)} (zstd, of '
                f'{report.size(self.spool_plain)} seen waiting); object store {report.ratio(plain, stored)} '
                f'(gzip, {len(packed)} of {len(blobs)} uploads)')

    def text_latency(self, metrics):
        seen = sorted(r.latency for r in self.fleet.calls('lines'))
        mid, _ = report.histogram_quantile(metrics, 'ack_seconds', 0.5, call='lines')
        high, _ = report.histogram_quantile(metrics, 'ack_seconds', 0.99, call='lines')
        return (f'p50 {report.millis(report.quantile(seen, 0.5))}, p99 {report.millis(report.quantile(seen, 0.99))}'
                f' at the clients; p50 <= {report.millis(mid)}, p99 <= {report.millis(high)} in tailrace')

    def text_outage(self):
        during = sum(self.cut_at <= r.at <= self.back_at for r in self.fleet.calls() if r.ok)
        text = (f'{self.back_at - self.cut_at:.1f} s without upstream, {during:,} calls answered meanwhile; up to '
                f'{self.peak:,} lines waited')
        if self.caught_up_at:
            text += f', caught up {self.caught_up_at - self.back_at:.0f} s after upstream was back'
        return text

    def text_socket(self):
        d = self.delegate
        return (f'{d.connections} connection{"s" * (d.connections != 1)}, open for {d.longest:.0f} s through the same '
                f'listener; {d.sent} heartbeats sent, {d.answered} answered')

    def print_ledger(self):
        about = {'accepted': 'array elements in acknowledged calls, the sum of all below',
                 'delivered': 'shown live by upstream', 'spooled': 'still waiting',
                 'superseded': 'not shown live: the finished log, stored by then, has them',
                 'settled': 'added to a finished log', 'late': 'came after the close',
                 'refused': 'refused by upstream', 'dead': 'kept aside'}
        for state, count in self.ledger.items():
            print(f'    {state:<10} {count:>9,}   {about.get(state, "")}')
        blobs = self.gate.ledger('blobs')
        parts = [f'{count} {state}' for state, count in blobs.items() if count and state != 'accepted']
        print(f'    blobs: {blobs["accepted"]} accepted = {" + ".join(parts) or 0}')
        print(f'    looked at {self.samples} times while it ran: it balanced '
              + (f'but for {self.unbalanced} times' if self.unbalanced else 'every time'))

    @staticmethod
    def print_verdict(verdict):
        names = {'harness': 'POST /blob through Harness, byte for byte',
                 'store': 'signed link and PUT to the object store, byte for byte',
                 'snapshot': "snapshots of delegates' streams, line by line"}
        print('  stored logs that equal what went in\n')
        for route, name in names.items():
            print(f'    {verdict.equal[route]:>4} of {verdict.steps[route]:<4} {name}')
        for problem in verdict.problems[:20]:
            print('    ' + problem)
        print()

    def print_kept(self):
        print('  left running\n')
        print(report.table([
            ('  tailrace', f'{self.gate.url}  pid {self.gate.pid}'),
            ('  metrics', f'http://127.0.0.1:{self.gate.ports["admin"]}/metrics, /healthz, /readyz'),
            ('  configuration', str(self.gate.config_path)), ('  log', str(self.gate.log_path)),
            ('  spool', str(self.gate.directory / 'spool')), ('  CA', self.ca),
            ('  stand-in Harness', f'{self.far.url}  pid {self.far.process.pid}'),
            ('  object store', self.far.store_url),
            ('  stand-in control', f'http://127.0.0.1:{self.far.control_port}/state'),
            ('  end both', f'kill {self.gate.pid} {self.far.process.pid}')]))
        print()


def interrupt(number, frame):
    raise KeyboardInterrupt


def main():
    args = arguments()
    gateway.BINARY = os.path.abspath(args.tailrace)
    # A shell without job control starts what it puts into the background with SIGINT ignored.
    for number in SIGNALS:
        signal.signal(number, interrupt)
    demo = Demo(args)
    good = finished = False
    try:
        demo.start()
        asyncio.run(demo.run())
        good = demo.summary()
        finished = True
    finally:
        if args.keep and finished:
            demo.leave()
        else:
            demo.stop()
    return 0 if good else 1


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        print('demo: interrupted')
        sys.exit(130)
