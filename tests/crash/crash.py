#!/usr/bin/python3
"""Kills tailrace again and again under load: half of the times at the named fault points, where they are compiled in,
the others at random moments, while the log service is slow, away, loses its answers or closes streams by itself, and
finished logs go by the log service and by links to the object store in turn. Then it looks: every acknowledged line is
in its stream's history or its log, or a dead letter if it had to become one, in order; what came twice was counted; no
stream was opened twice, no log replaced by less, and the ledger balances.

    TAILRACE=…/tailrace LOAD=…/tests/tools/load POWER=…/tests/power crash.py [--kills 20] [--seed N]"""
import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from look import Looker                                                 # noqa: E402
from oracle import Oracle, settle                                       # noqa: E402
from runs import Gateway, Harness, Load, Sampler, balance, ledgers, progress, promised, wait_for   # noqa: E402

SOURCES = Path(__file__).resolve().parent.parent.parent / 'src'
STEPS, LINES = 24, 5
LIMIT = 10 << 30                # of the spool
POINT_WAIT = 3                  # seconds for a named point to be passed; then it is killed anyway
SETTLE_WAIT = 30                # for those that come when a close was refused for 24 seconds
SETTLE_WEIGHT = 6               # which are therefore tried less often
CALLS = ['lines', 'blob', 'put-object', 'link', 'close']
POISON = 'poison'               # account whose lines the log service refuses for good
ROUTES = ['harness', 'googleapis']

# Passed by every call or commit; and some once in a life, or hardly.
OFTEN = re.compile(r'spool-(in-group|before-commit|commit|after-commit|between-callbacks)|'
                   r'logs-(before-ack|before-mark|after-mark|before-lines|lines-sent)')
SELDOM = re.compile(r'settle|dead|page|recover|upgrade|sweep|goodbye|app-')
AT_THE_END = {'spool-goodbye', 'app-drain', 'app-drained'}
ELSEWHERE = re.compile(r'takeover-|handover-|logs-after-replay')        # test_takeover.py, test_dead.py
NEEDS_ANSWERS = re.compile(r'logs-(after-(?!mark)|settle|link|before-object|object|paged-in|blob|.*dead)')


def points():
    """The names of the fault points, from the sources."""
    names = set()
    for path in SOURCES.rglob('*.c'):
        text = path.read_text()
        if 'rt/fault.h' in text and path.parent.name != 'rt':
            for call in re.findall(r'fault_point\((.*?)\);', text, re.S):
                names.update(re.findall(r'"([a-z-]+)"', call))
            names.update(re.findall(r'if \(fault_point\("([a-z-]+)"\)\)', text))
    return sorted(name for name in names if not ELSEWHERE.match(name))


class Upstream:
    """What the log service does to its callers in one round."""

    def __init__(self, far, rng, acks):
        self.far, self.rng, self.acks = far, rng, acks
        self.moods = ['healthy', 'slow', 'away', 'lost', 'busy', 'half', 'cut', 'lost-close', 'foreign']
        self.n = 0
        self.foreign = collections.Counter()            # closes that were not the gateway's

    def next(self, point):
        """One in which the point that is armed can be passed."""
        self.heal()
        mood = self.moods[self.n % len(self.moods)]
        self.n += 1
        if point == 'logs-page-out':
            mood = 'away'
        elif 'settle' in point:
            mood = 'foreign'
        elif mood in ('away', 'busy') and NEEDS_ANSWERS.match(point):
            mood = 'healthy'
        self.change(mood)
        return mood

    def change(self, mood):
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
        elif mood == 'foreign':
            self.close_some()

    def close_some(self):
        """The service ends streams by itself (HP 7a); what comes for them afterwards is settled into their logs."""
        for key in self.open_steps()[:6]:
            if self.far.foreign('acct', key, close=True, snapshot=True)['status'] == 204:
                self.foreign['acct/' + key] += 1

    def open_steps(self):
        """Keys of steps that are open and upload no log of their own, from the end of what was acknowledged."""
        with open(self.acks, 'rb') as f:
            f.seek(max(0, os.stat(self.acks).st_size - 20000))
            rows = [row.split() for row in f.read().decode().splitlines()[1:]]
        over = {row[1] for row in rows if row[0] in ('close', 'fail')}
        keys = {row[1]: row[3] for row in rows if row[0] == 'step' and row[2] == 'delegate'}
        return [keys[row[1]] for row in rows if row[0] == 'open' and row[1] in keys and row[1] not in over]

    def heal(self):
        self.far.clear_faults()
        self.far.fault('status', 'lines', account=POISON, code=413, count=None)
        self.far.start()


class Killer:
    """Ends the gateway the hard way and starts it again, on the same ports and spool."""

    def __init__(self, gateway, rng, named):
        self.gateway, self.rng, self.named = gateway, rng, named
        self.kills, self.at_point = 0, collections.Counter()
        self.tried = collections.Counter()
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
        wait = SETTLE_WAIT if 'settle' in (self.armed or '') else POINT_WAIT
        if self.armed and self.died(0.4):
            self.at_point[self.armed] += 1
        elif self.armed and (self.provoke() or self.died(wait)) and self.died(POINT_WAIT):
            self.at_point[self.armed] += self.gateway.process.returncode == -signal.SIGKILL
        elif not self.died(0 if self.armed else self.rng.uniform(0.05, 1.6)):
            self.gateway.kill()
        self.kills += 1

    def provoke(self):
        """Does what leads to the point that is armed."""
        if self.armed != 'app-reload' and self.armed not in AT_THE_END:
            return False
        if self.armed == 'app-reload':
            self.turn()
        self.gateway.wait_ready()
        self.gateway.signal(signal.SIGHUP if self.armed == 'app-reload' else signal.SIGTERM)
        return True

    def choose(self):
        """The point that had the fewest kills, until they are half of all."""
        if not self.named or 2 * sum(self.at_point.values()) > self.kills:
            return None
        def had(point):
            n = self.at_point[point] + self.tried[point] / 3
            return n * SETTLE_WEIGHT if 'settle' in point else n
        return min(self.named, key=lambda p: (had(p), self.rng.random()))

    def arm(self):
        self.armed = self.choose()
        self.gateway.env.pop('TAILRACE_FAULT', None)
        if self.armed:
            self.tried[self.armed] += 1
            most = 40 if OFTEN.match(self.armed) else 1 if SELDOM.search(self.armed) else 4
            hit = self.rng.randint(1, most)
            self.gateway.env['TAILRACE_FAULT'] = '%s:%d:kill' % (self.armed, hit)
            if self.armed == 'spool-upgrade':
                downgrade(Path(self.gateway.options['spool']['directory']) / 'spool.db')
        elif self.named and self.kills % 4 == 1:        # and some see the disk fail for a moment
            self.direct += 2
            self.gateway.env['TAILRACE_FAULT'] = 'spool-commit:%d:once,spool-piece:2:once' \
                % self.rng.randrange(5, 50)
        self.turn()

    def turn(self):
        """The other way for finished logs, or the one that passes the point."""
        route = ROUTES[self.kills % len(ROUTES)]
        if self.armed and re.search('link|object|blob', self.armed):
            route = 'harness' if 'blob' in self.armed else 'googleapis'
        self.gateway.write_config(harness={'upload-logs': route})

    def start(self):
        self.gateway.start(wait=False)
        threading.Thread(target=self.ready, args=(self.gateway.process,), daemon=True).start()

    def ready(self, process):
        try:
            self.gateway.wait_ready()
        except AssertionError as e:
            if process.poll() is None:
                progress('not ready: %s' % e)

    def finish(self):
        """A last life that is not to end by itself."""
        self.gateway.env.pop('TAILRACE_FAULT', None)
        self.gateway.kill()
        self.start()


def downgrade(path):
    """Makes a spool one of format 1, for the next start to upgrade."""
    db = sqlite3.connect(path, isolation_level=None)
    version = db.execute('PRAGMA user_version').fetchone()[0]
    if version > 2:
        drop = ''.join('ALTER TABLE %s DROP COLUMN sealed; ' % t for t in ('stream', 'record', 'piece', 'dead', 'value'))
        db.executescript('BEGIN; DROP VIEW backlog; DROP VIEW dead_letters; DROP VIEW pieces; DROP VIEW ledger_view; '
                         + drop + 'DROP TABLE epoch; CREATE VIEW backlog AS SELECT 1; PRAGMA user_version=2; COMMIT;')
    db.executescript('BEGIN; UPDATE stream SET next=max(next, coalesce((SELECT max(number)+1 FROM record '
                     'WHERE stream=stream.id), 0)); DELETE FROM record WHERE id IN gone; DROP VIEW backlog; '
                     'DROP TABLE gone; PRAGMA user_version=1; COMMIT;')
    db.close()


def check_poison(oracle, spool, steps, lines):
    """Lines of the account whose lines are refused: each is a dead letter, and no other is."""
    looker = Looker(LIMIT)
    found, dead = looker.look(spool), collections.defaultdict(set)
    looker.close()
    for name, n, text in found.dead:
        outs = [line['out'] for line in json.loads(b'[' + text + b']')]
        oracle.check(name.startswith(POISON + '/') and len(outs) == n, 'a dead letter of %s with %d lines' % (name, n))
        dead[name].update(int(out.split()[1]) for out in outs)
    for number, step in steps.items():
        gone = step.acked - dead[POISON + '/' + step.key]
        oracle.check(not gone, 'refused lines of step %d are no dead letters: %s' % (number, sorted(gone)[:5]))
    oracle.check(sum(n for _, n, _ in found.dead) == lines['dead'], 'dead letters are not what the ledger says')
    oracle.check(not found.damage, 'damage: %s' % found.damage[:3])
    acked = sum(len(step.acked) for step in steps.values())
    progress('%d lines were refused for good and are dead letters' % acked)
    return acked


def start_loads(gateway, directory):
    """Steps as they are; two that write so fast that they are paged; one that is refused."""
    common = {'seconds': 36000, 'again': True, 'retry_for': 120}
    return {
        'steps': Load(gateway.url, directory / 'steps', steps=STEPS, interval=100, lines=LINES, bytes=1500, puts=12,
                      kinds='le-blob,le-link,delegate', run='crash', **common),
        'flood': Load(gateway.url, directory / 'flood', steps=2, interval=4, lines=1, bytes=150, puts=400,
                      kinds='delegate', run='flood', first_id=10000000, **common),
        'poison': Load(gateway.url, directory / 'poison', steps=1, interval=150, lines=2, bytes=300, puts=5,
                       kinds='delegate', run='poison', first_id=20000000, account=POISON, token='token-2', **common)}


def end_loads(loads, oracle):
    for load in loads.values():
        load.stop()
    for name, load in loads.items():
        result = load.result(180)
        progress('%s: %s' % (name, {k: result[k] for k in ('steps', 'failed', 'lines', 'retries', 'p99_ms', 'max_ms')}))
        oracle.append('client calls failed') if result['failed'] else None


def check_end(far, gateway, directory, killer, upstream):
    """The oracle, when all has come to rest."""
    steps = {**promised(directory / 'steps'), **promised(directory / 'flood')}
    oracle = Oracle(far, steps, foreign=upstream.foreign)
    oracle.run()
    lines, blobs = ledgers(gateway)
    resent = int(gateway.metric('lines_resent_total'))
    progress('ledger %s, blobs %s; resent %d; streams %s' % (lines, blobs, resent,
             {k: v for k, v in gateway.metrics().items() if k.startswith('stream_events')}))
    gateway.close()
    poison = check_poison(oracle, gateway.options['spool']['directory'], promised(directory / 'poison'), lines)
    oracle.check(not balance(lines) and not balance(blobs), 'the ledger does not balance: %s %s' % (lines, blobs))
    oracle.check(lines['refused'] == lines['late'] == blobs['dead'] == 0,
                 'lines went astray: %s %s' % (lines, blobs))
    oracle.check(oracle.twice <= resent, '%d lines came twice, %d are counted' % (oracle.twice, resent))
    # A call that the spool could not take went to the log service as it was, and is in no ledger.
    oracle.check(oracle.acked + poison - killer.direct * LINES <= lines['accepted'] <= oracle.acked + poison,
                 '%d lines are in the ledger, %d were acknowledged' % (lines['accepted'], oracle.acked + poison))
    return oracle


def check_points(oracle, killer):
    """Half of the kills are at points, and every point had some, if there were enough."""
    progress('%d kills at points, %d at random' % (sum(killer.at_point.values()),
                                                   killer.kills - sum(killer.at_point.values())))
    progress('points: %s' % ', '.join('%s %d' % (p, killer.at_point[p]) for p in killer.named))
    if killer.named and killer.kills >= 6 * len(killer.named):
        oracle.check(sum(killer.at_point.values()) >= 0.45 * killer.kills, 'too few kills were at named points')
        never = [p for p in killer.named if not killer.at_point[p]]
        oracle.check(not never, 'no kill was at %s' % ', '.join(never))


def run(args, directory):
    rng = random.Random(args.seed)
    named = points() if args.points else []
    with Harness() as far:
        gateway = Gateway(directory / 'gateway', far.url, spool={'limit': '%dGiB' % (LIMIT >> 30)},
                          log={'level': 'info'}, drain={'limit': '1s'})
        killer, upstream, early = Killer(gateway, rng, named), Upstream(far, rng, directory / 'steps'), []
        upstream.heal()
        sampler = Sampler(gateway, 0.5)
        loads = start_loads(gateway, directory)
        while killer.kills < args.kills and all(load.running for load in loads.values()):
            mood = upstream.next(killer.armed or '')
            before = sum(killer.at_point.values())
            killer.end()
            how = '%s%s' % (killer.armed, '' if sum(killer.at_point.values()) > before else ' (not passed)') \
                if killer.armed else 'at random'
            progress('kill %d: upstream %s, %s' % (killer.kills, mood, how))
            killer.arm()
            killer.start()
        killer.finish()
        upstream.heal()
        end_loads(loads, early)
        gateway.wait_ready()
        settle(far, gateway, early, args.settle)
        sampler.stop()
        oracle = check_end(far, gateway, directory, killer, upstream)
        for text in early:
            oracle.check(False, text)
        oracle.check(not sampler.unbalanced, 'the ledger did not balance: %s' % sampler.unbalanced[:3])
        oracle.check(killer.kills == args.kills, 'the load ended early')
        check_points(oracle, killer)
        progress('upstream: %s' % far.counts()['requests'])
        return ('crash: %d kills, %d acknowledged, %d delivered, %d lost, %d duplicated'
                % (killer.kills, oracle.acked, oracle.delivered, oracle.lost, oracle.twice)), oracle.faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--points', action='store_true', help='the fault points are compiled in')
    parser.add_argument('--settle', type=int, default=180, help='seconds until all must have arrived in the end')
    parser.add_argument('--keep', help='work in this directory and leave it')
    args = parser.parse_args()
    directory = Path(args.keep or tempfile.mkdtemp(prefix='crash-'))
    directory.mkdir(parents=True, exist_ok=True)
    progress('seed %d' % args.seed)
    line, faults = 'crash: it did not come to an end', ['it did not come to an end']
    begun = time.monotonic()
    try:
        line, faults = run(args, directory)
    finally:
        if not args.keep and not faults:
            shutil.rmtree(directory, ignore_errors=True)
        elif not args.keep:
            progress('left behind: %s' % directory)
    progress('%.0f s; %d things are wrong' % (time.monotonic() - begun, len(faults)))
    print(line)
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
