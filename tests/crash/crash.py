#!/usr/bin/python3
"""Kills tailrace again and again under load, at random moments and, where they are compiled in, at
the named fault points, while the log service is slow, away or loses its answers. Then it looks:
every acknowledged line is in its stream's history or its blob, in order; what came twice was
counted; no stream was opened twice, no blob replaced by less, and the ledger balances.

    TAILRACE=…/tailrace LOAD=…/tests/tools/load crash.py [--kills 20] [--seed N]"""
import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from oracle import Oracle, settle                                     # noqa: E402
from runs import Gateway, Harness, Load, Sampler, balance, ledgers, progress, promised   # noqa: E402

SOURCES = Path(__file__).resolve().parent.parent.parent / 'src'
STEPS, LINES = 24, 5
POINT_WAIT = 4                  # seconds for a named point to be passed; then it is killed anyway
CALLS = ['lines', 'blob', 'put-object', 'link', 'close']


def points():
    """The names of the fault points, from the sources."""
    names = set()
    for path in SOURCES.rglob('*.c'):
        text = path.read_text()
        if 'rt/fault.h' in text and path.parent.name != 'rt':
            names.update(re.findall(r'"((?:spool|logs)-[a-z-]+)"', text))
    return sorted(names)


class Upstream:
    """What the log service does to its callers in one round."""

    def __init__(self, far, rng):
        self.far, self.rng = far, rng
        self.moods = ['healthy', 'slow', 'away', 'lost', 'busy', 'half', 'cut', 'lost-close']
        self.n = 0

    def next(self):
        self.far.clear_faults()
        self.far.start()
        mood = self.moods[self.n % len(self.moods)]
        self.n += 1
        if mood == 'slow':      # executed at once, answered late: a kill in between leaves it unknown
            self.far.fault('delay', CALLS + ['open'], count=None, seconds=0.3, where='after')
        elif mood == 'away':
            self.far.stop()
        elif mood == 'lost':
            for call in CALLS + ['open']:
                self.far.fault('execute_lost', call, count=6, skip=self.rng.randrange(4),
                               how=self.rng.choice(['rst', 'fin']))
        elif mood == 'lost-close':
            self.far.fault('execute_lost', 'close', count=12)
            self.far.fault('execute_lost', ['blob', 'put-object'], count=12)
        elif mood == 'busy':
            self.far.fault('status', 'any', count=40, code=503)
        elif mood == 'half':
            self.far.fault('half_then_500', 'lines', count=10)
        elif mood == 'cut':
            self.far.fault('reset', ['lines', 'blob', 'put-object'], count=12, where='mid_body')
        return mood

    def heal(self):
        self.far.clear_faults()
        self.far.start()


class Killer:
    """Ends the gateway the hard way and starts it again, on the same ports and spool."""

    def __init__(self, gateway, rng, named):
        self.gateway, self.rng, self.named = gateway, rng, named
        self.kills, self.at_point = 0, {}
        self.armed = None
        self.direct = 0         # calls that may have gone past a spool that could not commit

    def died(self, timeout):
        """Whether it ended by itself within `timeout` seconds."""
        try:
            self.gateway.process.wait(timeout)
            return True
        except Exception:       # subprocess.TimeoutExpired
            return False

    def end(self):
        if self.armed and self.died(POINT_WAIT):
            self.at_point[self.armed] = self.at_point.get(self.armed, 0) + 1
        elif not self.died(self.rng.uniform(0.1, 2.5)):
            self.gateway.kill()
        self.kills += 1

    def arm(self):
        """Every second life ends at a named point, if there are any."""
        self.armed = None
        self.gateway.env.pop('TAILRACE_FAULT', None)
        if self.named and self.kills % 2 == 0:
            self.armed = self.named[self.kills // 2 % len(self.named)]
            hit = self.rng.randrange(2, 8 if self.armed.startswith('logs-after-') else 40)
            self.gateway.env['TAILRACE_FAULT'] = '%s:%d:kill' % (self.armed, hit)
        elif self.named and self.kills % 4 == 1:        # and some see the disk fail for a moment
            self.direct += 2
            self.gateway.env['TAILRACE_FAULT'] = 'spool-commit:%d:once,spool-piece:2:once' \
                % self.rng.randrange(5, 50)

    def start(self):
        self.gateway.start(wait=False)
        threading.Thread(target=self.ready, args=(self.gateway.process,), daemon=True).start()

    def ready(self, process):
        try:
            self.gateway.wait_ready()
        except AssertionError as e:
            if process.poll() is None:
                progress('not ready: %s' % e)


def run(args, directory):
    rng = random.Random(args.seed)
    named = points() if args.points else []
    with Harness() as far:
        gateway = Gateway(directory / 'gateway', far.url, spool={'limit': '10GiB'}, log={'level': 'info'})
        killer, upstream, early = Killer(gateway, rng, named), Upstream(far, rng), []
        sampler = Sampler(gateway, 0.5)
        load = Load(gateway.url, directory / 'ack', steps=STEPS, interval=60, lines=LINES, bytes=1500,
                    puts=12, seconds=36000, again=True, kinds=args.kinds, run='crash',
                    retry_for=120)
        while killer.kills < args.kills and load.running:
            mood = upstream.next()
            killer.end()
            progress('kill %d: upstream %s, %s' % (killer.kills, mood, killer.armed or 'at random'))
            killer.arm()
            killer.start()
        killer.gateway.env.pop('TAILRACE_FAULT', None)
        if killer.armed:                # the last life is not to end by itself
            killer.armed = None
            gateway.kill()
            killer.start()
        upstream.heal()
        load.stop()
        result = load.result(180)
        progress('load: %s' % result)
        gateway.wait_ready()
        settle(far, gateway, early)
        sampler.stop()
        oracle = Oracle(far, promised(directory / 'ack'))
        for text in early:
            oracle.check(False, text)
        oracle.run()
        lines, blobs = ledgers(gateway)
        resent = int(gateway.metric('lines_resent_total'))
        oracle.check(not sampler.unbalanced, 'the ledger did not balance: %s' % sampler.unbalanced[:3])
        oracle.check(not balance(lines) and not balance(blobs), 'the ledger does not balance: %s %s' % (lines, blobs))
        oracle.check(lines['dead'] == lines['refused'] == lines['late'] == blobs['dead'] == 0,
                     'lines went astray: %s %s' % (lines, blobs))
        oracle.check(oracle.twice <= resent, '%d lines came twice, %d are counted' % (oracle.twice, resent))
        # A call that the spool could not take went to the log service as it was, and is in no ledger.
        oracle.check(oracle.acked - killer.direct * LINES <= lines['accepted'] <= oracle.acked,
                     '%d lines are in the ledger, %d were acknowledged' % (lines['accepted'], oracle.acked))
        oracle.check(killer.kills == args.kills, 'the load ended early')
        oracle.check(result['failed'] == 0, 'client calls failed')
        progress('ledger %s, blobs %s; resent %d; streams %s' % (lines, blobs, resent,
                 {k: v for k, v in gateway.metrics().items() if k.startswith('stream_events')}))
        progress('points: %s; upstream %s' % (killer.at_point or 'none', far.counts()['requests']))
        gateway.close()
        return ('crash: %d kills, %d acknowledged, %d delivered, %d lost, %d duplicated'
                % (killer.kills, oracle.acked, oracle.delivered, oracle.lost, oracle.twice)), oracle.faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--kinds', default='le-blob,le-link,delegate', help='what the steps do')
    parser.add_argument('--points', action='store_true', help='the fault points are compiled in')
    parser.add_argument('--keep', help='work in this directory and leave it')
    args = parser.parse_args()
    directory = Path(args.keep or tempfile.mkdtemp(prefix='crash-'))
    directory.mkdir(parents=True, exist_ok=True)
    progress('seed %d' % args.seed)
    faults = ['it did not come to an end']
    try:
        line, faults = run(args, directory)
    finally:
        if not args.keep and not faults:
            shutil.rmtree(directory, ignore_errors=True)
        elif not args.keep:
            progress('left behind: %s' % directory)
    print(line)
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
