#!/usr/bin/python3
"""Cuts the power. One run of tailrace under load is recorded: everything it does to its spool's files, and how far
that record was when each call was acknowledged and when each change was made at the log service. From the record
disks are made as they may be found after a cut at many moments: what was synced is there, every other write is kept,
dropped or torn at 512 bytes. Each must open with the program's own code and hold all that had been acknowledged and
was not yet upstream, in order and whole, with a ledger that balances. On some of them the program itself is started
again, with the log service as it was at that moment, and all must arrive.

In the end it looks at disks whose syncs did nothing, and at a run with spool.sync: normal. There it must find losses,
or it could not find any.

    TAILRACE=… LOAD=…/tests/tools/load POWER=…/tests/power power.py [--images 1000] [--seed N] [--break normal]

--break normal sets spool.sync: normal for the first run as well: it fails then."""
import argparse
import collections
import gzip
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from look import Looker                                                 # noqa: E402
from oracle import Oracle                                               # noqa: E402
from runs import Gateway, Harness, Load, balance, disorder, ledgers, progress, promised, sequence, wait_for  # noqa: E402
from gateway import ALARMS                                              # noqa: E402
from standin import gojson, journal                                     # noqa: E402
import disk                                                             # noqa: E402

POWER = Path(os.environ.get('POWER', 'tests/power'))
LIMIT = 16 << 20            # of the spool: small, so that its log is copied and begun anew often
OBJECTS = '/harness-logs/logs/'
FATES = 5                   # images of each cut


# --- the run that is recorded -------------------------------------------------------------------------

class Recording:
    """What one run left behind."""

    def __init__(self, directory):
        self.root = directory / 'disk'
        self.log, self.ack, self.changes = directory / 'record', directory / 'ack', directory / 'changes'
        self.root.mkdir(parents=True)

    def env(self, kill_after):
        env = {'LD_PRELOAD': str(POWER / 'recorder.so'), 'POWER_ROOT': str(self.root), 'POWER_LOG': str(self.log)}
        return dict(env, POWER_KILL=str(kill_after)) if kill_after else env


class Lives:
    """The gateway's: some end by a kill after so many changes, some in good order, the last one with the run."""

    def __init__(self, gateway, recording, rng):
        self.gateway, self.recording, self.rng = gateway, recording, rng
        self.n = 0
        self.orderly = None         # when to end in good order

    def begin(self, last=False):
        self.n += 1
        kill = 0 if last or self.n % 3 == 0 else self.rng.randrange(150, 700)
        self.orderly = time.monotonic() + self.rng.uniform(0.5, 1.5) if not kill and not last else None
        self.gateway.env = dict(os.environ, **self.recording.env(kill))
        self.gateway.start(wait=False)

    def look(self):
        if self.gateway.process.poll() is not None:
            self.begin()
        elif self.orderly and time.monotonic() > self.orderly:
            self.gateway.stop()
            self.begin()

    def finish(self):
        """A last life, without a kill."""
        self.gateway.kill()
        self.begin(last=True)
        self.gateway.wait_ready()


def change_mood(far, rng):
    far.clear_faults()
    mood = rng.choice(['healthy', 'away', 'away', 'lost'])
    if mood == 'away':
        far.stop()
        return
    far.start()
    if mood == 'lost':
        far.fault('execute_lost', ['lines', 'close', 'blob', 'put-object'], count=3)


def record(directory, rng, seconds, sync):
    """Runs the program under load; its Recording. Everything must have arrived in the end."""
    recording = Recording(directory)
    with Harness(journal=str(recording.changes), journal_mark=str(recording.log)) as far:
        spool = {'directory': str(recording.root / 'spool'), 'limit': '%dMiB' % (LIMIT >> 20), 'sync': sync}
        gateway = Gateway(directory / 'gateway', far.url, spool=spool, log={'level': 'info'}, drain={'limit': '1s'},
                          start=False)
        gateway.env = dict(os.environ, **recording.env(0))
        gateway.start()             # a first one, that makes the spool
        load = Load(gateway.url, recording.ack, steps=9, interval=30, lines=4, bytes=1200, puts=10, seconds=36000,
                    again=True, kinds='le-blob,le-link,delegate', run='power', retry_for=60, mark=recording.log)
        lives, until, next_mood = Lives(gateway, recording, rng), time.monotonic() + seconds, 0
        time.sleep(0.3)
        gateway.kill()
        while time.monotonic() < until:
            if time.monotonic() > next_mood:
                change_mood(far, rng)
                next_mood = time.monotonic() + rng.uniform(0.2, 0.8)
            lives.look()
            time.sleep(0.01)
        far.clear_faults()
        far.start()
        lives.finish()
        load.stop()
        result = load.result(90)
        gateway.wait_delivered(60)
        wait_for(lambda: far.counts()['streams'] == 0, 30, what='the end of all closes')
        oracle = Oracle(far, promised(recording.ack))
        oracle.run()
        gateway.close()
    assert not oracle.faults and result['failed'] == 0, 'the run itself went wrong'
    progress('recorded: %d lives, %d lines, %d bytes of record' % (lives.n + 1, result['lines'],
                                                                  recording.log.stat().st_size))
    return recording


def same_as_disk(recording, whole):
    """Whether the record tells all that was done: the files must be as it says they are."""
    there = {str(p.relative_to(recording.root)): p.read_bytes() for p in recording.root.rglob('*')
             if p.is_file() and not p.name.endswith('-shm')}
    return sorted(k for k in set(there) | set(whole) if there.get(k) != whole.get(k))


# --- what was upstream when ---------------------------------------------------------------------------

class Upstream:
    """From the log service's journal: when each thing arrived there first."""

    def __init__(self, path):
        self.lines = collections.defaultdict(dict)      # name: {seq: mark}
        self.truth = collections.defaultdict(dict)      # name: {seq: line}
        self.blobs = collections.defaultdict(dict)      # name: {sha256: mark}
        self.logs = {}                                  # sha256: lines of that log
        self.opens, self.closes = {}, {}
        for entry in journal.entries(path):
            self.add(entry, journal.Past(entry))

    def add(self, entry, req):
        body, mark = entry['body'].encode('latin-1'), entry['mark']
        if entry['port'] == 'store':
            self.blob(unquote(req.path)[len(OBJECTS):], body, req, mark)
            return
        params = gojson.query(req.query)
        name = params['accountID'] + '/' + params['key']
        if entry['call'] == 'lines':
            self.arrived(name, gojson.lines(body), mark)
        elif entry['call'] == 'blob':
            self.blob(name, body, req, mark)
        elif entry['call'] == 'open':
            self.opens.setdefault(name, mark)
        elif entry['call'] == 'close':
            self.closes.setdefault(name, mark)

    def arrived(self, name, lines, mark):
        for line in lines:
            seq = int(line['out'].split()[1])
            self.lines[name].setdefault(seq, mark)
            self.truth[name][seq] = line['out']

    def blob(self, name, body, req, mark):
        if req.get('content-encoding') == 'gzip':
            body = gzip.decompress(body)
        sha = hashlib.sha256(body).hexdigest()
        self.blobs[name].setdefault(sha, mark)
        self.logs[sha] = [json.loads(row) for row in body.splitlines()]
        self.arrived(name, self.logs[sha], mark)


# --- the oracle ---------------------------------------------------------------------------------------

class Judge:
    """Whether an image holds what it must."""

    def __init__(self, recording):
        self.recording, self.up = recording, Upstream(recording.changes)
        self.parsed = {}
        self.acknowledged = 0

    def outs(self, text):
        if text not in self.parsed:
            self.parsed[text] = [line['out'] for line in json.loads(b'[' + text + b']')]
        return self.parsed[text]

    def judge(self, found, steps, mark):
        """(lost, damaged): what is wrong, in words."""
        lost, damaged = [], list(found.damage) + ['a dead letter of ' + name for name, _, _ in found.dead]
        ids = {name: i for i, name in found.names.items()}
        for family, (accepted, spooled, missing) in found.ledger.items():
            if missing:
                damaged.append('the ledger of %s does not balance: %d' % (family, missing))
        have = sum(n for rows in found.lines.values() for _, n, _ in rows)
        if found.ledger and found.ledger['lines'][1] != have:
            damaged.append('%d lines are spooled, %d are in the ledger' % (have, found.ledger['lines'][1]))
        if not found.ledger:
            damaged.append('it cannot be looked at')
        for number, step in steps.items():
            self.step(found, number, step, ids.get('acct/' + step.key), mark, lost, damaged)
        wanted = sum(len(step.acked) for step in steps.values())
        if found.ledger and found.ledger['lines'][0] < wanted:
            lost.append('%d lines were acknowledged, %d are in the ledger' % (wanted, found.ledger['lines'][0]))
        return lost, damaged

    def step(self, found, number, step, stream, mark, lost, damaged):
        name, where, up = 'acct/' + step.key, 'step %d' % number, self.up
        outs = [out for _, _, text in sorted(found.lines.get(stream, ())) for out in self.outs(text)]
        seqs = sequence(outs, number)
        wrong, twice = disorder(seqs)
        if wrong or twice:
            damaged.append('%s: %d lines out of order, %d twice' % (where, wrong, twice))
        bad = [s for s, out in zip(seqs, outs) if up.truth[name].get(s, out) != out]
        if bad:
            damaged.append('%s: lines differ: %s' % (where, bad[:5]))
        here = set(seqs)
        for sha in found.blobs.get(stream, ()):
            if sha not in up.logs:
                damaged.append('%s: an upload that nobody made' % where)
            here.update(int(line['out'].split()[1]) for line in up.logs.get(sha, ()))
        gone = [s for s in step.acked if s not in here and up.lines[name].get(s, mark + 1) > mark]
        if gone:
            lost.append('%s: %d lines, %s…' % (where, len(gone), sorted(gone)[:5]))
        if step.blob and step.blob[1] not in found.blobs.get(stream, ()) and \
                up.blobs[name].get(step.blob[1], mark + 1) > mark:
            lost.append('%s: its upload' % where)
        if step.opened and stream is None and up.opens.get(name, mark + 1) > mark:
            lost.append('%s: its open' % where)
        if step.closed and stream not in found.closes and up.closes.get(name, mark + 1) > mark:
            lost.append('%s: its close' % where)
        self.acknowledged += len(step.acked) + bool(step.blob) + step.opened + step.closed


# --- images -------------------------------------------------------------------------------------------

def lay_out(image, path):
    """The image as files below `path`. Not the reserve, which is nothing but room."""
    shutil.rmtree(path, ignore_errors=True)
    (path / 'spool').mkdir(parents=True, mode=0o700)
    for name, content in image.items():
        if not name.endswith('.reserve'):
            file = path / name
            file.touch(mode=0o600)      # as the program makes them; it refuses a key that others can read
            file.write_bytes(content)


def fates(rng):
    return [disk.Nothing(), disk.Everything(), disk.LastTorn(rng), disk.Chance(rng), disk.Chance(rng)]


def choose_cuts(ops, n, rng):
    """After how many operations: every change of a name with what follows, the rest by chance."""
    steps = [i for i, op in enumerate(ops) if op.kind in 'CMUR']
    near = {min(i + d, len(ops)) for i in steps for d in (1, 2, 3)}
    near = set(rng.sample(sorted(near), min(len(near), n // 4)))
    rest = [i for i in range(1, len(ops) + 1) if i not in near]
    return sorted(near | set(rng.sample(rest, min(len(rest), n - len(near)))))


class Totals:
    def __init__(self):
        self.images = self.cuts = self.lost = self.damaged = 0

    def add(self, where, lost, damaged, quiet):
        self.images += 1
        self.lost += len(lost)
        self.damaged += len(damaged)
        for text in [] if quiet else ['LOST ' + t for t in lost] + ['DAMAGED ' + t for t in damaged]:
            progress('%s: %s' % (where, text))


def check_images(recording, judge, args, rng, n, blind=False, quiet=False, samples=0):
    """Looks at `n` images; (Totals, [(image, mark)] of those for the program itself)."""
    ops = disk.read_record(recording.log)
    cuts = choose_cuts(ops, max(1, n // FATES), rng)
    chosen = set(rng.sample(range(len(cuts)), min(samples, len(cuts))))
    state, done, totals, kept, looker = disk.Disk(blind), 0, Totals(), [], Looker(LIMIT)
    place = Path(args.work) / 'image'
    for i, cut in enumerate(cuts):
        for op in ops[done:cut]:
            state.apply(op)
        done, mark = cut, ops[cut - 1].end
        steps = promised(recording.ack, mark)
        totals.cuts += 1
        for fate in fates(rng):
            image = state.image(fate)
            lay_out(image, place)
            lost, damaged = judge.judge(looker.look(place / 'spool'), steps, mark)
            totals.add('cut %d of %d, %s' % (cut, len(ops), type(fate).__name__), lost, damaged, blind or quiet)
            if i in chosen and type(fate) is disk.Chance:
                kept.append((image, mark))
                chosen.discard(i)
    for op in ops[done:]:
        state.apply(op)
    looker.close()
    wrong = same_as_disk(recording, state.image(disk.Everything()))
    assert not wrong, 'the record does not tell all that was done to %s' % wrong
    return totals, kept


# --- the program itself on an image -------------------------------------------------------------------

def restart(recording, image, mark, directory):
    """Starts the program on it, with the log service as it was then; what is wrong afterwards."""
    lay_out(image, directory / 'disk')
    steps = promised(recording.ack, mark)
    with Harness() as far:
        far.replay(recording.changes, mark)
        gateway = Gateway(directory / 'gateway', far.url, log={'level': 'info'},
                          spool={'directory': str(directory / 'disk' / 'spool'), 'limit': '%dMiB' % (LIMIT >> 20)})
        closed, early = {'acct/' + s.key for s in steps.values() if s.closed}, None
        try:
            gateway.wait_delivered(30)
            wait_for(lambda: not closed & set(far.state(lines=False)['streams']), 20, what='the end of all closes')
        except AssertionError as e:
            early = '%s; %s' % (e, ledgers(gateway))
        oracle = Oracle(far, steps, ended=False)
        oracle.check(not early, early)
        oracle.run()
        lines, blobs = ledgers(gateway)
        resent = int(gateway.metric('lines_resent_total'))
        oracle.check(not balance(lines) and not balance(blobs), 'the ledger does not balance: %s %s' % (lines, blobs))
        oracle.check(lines['dead'] == lines['refused'] == lines['late'] == blobs['dead'] == 0,
                     'lines went astray: %s %s' % (lines, blobs))
        oracle.check(oracle.twice <= resent, '%d lines came twice, %d are counted' % (oracle.twice, resent))
        oracle.check('set aside' not in gateway.log(), 'the spool was set aside')
        oracle.check(not ALARMS.search(gateway.log()), 'it logged a bug')
        gateway.kill()      # an orderly end would wait for the clients of open streams
    return oracle


def restart_all(recording, kept, args):
    """(lost, wrong) of all of them."""
    lost = wrong = 0
    for n, (image, mark) in enumerate(kept):
        oracle = restart(recording, image, mark, Path(args.work) / ('restart-%d' % n))
        lost += oracle.lost
        wrong += len(oracle.faults)
        shutil.rmtree(Path(args.work) / ('restart-%d' % n), ignore_errors=True)
    progress('%d images were started again: %d lost, %d wrong' % (len(kept), lost, wrong))
    return lost, wrong


# --- all of it ----------------------------------------------------------------------------------------

def can_fail(recording, judge, args, rng):
    """Whether it sees what must get lost: on a disk that lies, and with spool.sync: normal."""
    n, seen = min(100, args.images), True
    blind, _ = check_images(recording, judge, args, rng, n, blind=True)
    weak = record(Path(args.work) / 'weak', rng, 2, 'normal')
    normal, _ = check_images(weak, Judge(weak), args, rng, n, quiet=True)
    for what, totals in ('a disk that lies', blind), ('spool.sync: normal', normal):
        progress('%s, %d images: %d lost, %d damaged' % (what, totals.images, totals.lost, totals.damaged))
        if not totals.lost:
            progress('WRONG: it does not see what must get lost')
            seen = False
    return seen


def run(args):
    rng = random.Random(args.seed)
    recording = record(Path(args.work) / 'run', rng, args.seconds, args.broken or 'full')
    judge = Judge(recording)
    totals, kept = check_images(recording, judge, args, rng, args.images, samples=args.restarts)
    acknowledged = judge.acknowledged
    lost, wrong = restart_all(recording, kept, args)
    good = totals.lost + totals.damaged + lost + wrong == 0
    good = (args.broken or can_fail(recording, judge, args, rng)) and good
    print('power: %d images of %d cuts, %d acknowledged, %d lost, %d damaged'
          % (totals.images, totals.cuts, acknowledged, totals.lost + lost, totals.damaged + wrong))
    return 0 if good else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--images', type=int, default=1000)
    parser.add_argument('--restarts', type=int, help='images on which the program is started again')
    parser.add_argument('--seconds', type=float, help='how long the run is')
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--break', dest='broken', choices=['normal'], help='with something broken on purpose')
    parser.add_argument('--work', help='directory to work in; it is kept')
    args = parser.parse_args()
    args.restarts = max(2, args.images // 100) if args.restarts is None else args.restarts
    args.seconds = args.seconds or min(10, max(3, args.images / 100))
    keep = bool(args.work)
    base = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None   # nothing here needs a disk
    args.work = os.path.realpath(args.work or tempfile.mkdtemp(prefix='power-', dir=base))
    progress('seed %d' % args.seed)
    status = 1
    try:
        status = run(args)
    finally:
        if status == 0 and not keep:
            shutil.rmtree(args.work, ignore_errors=True)
        else:
            progress('left behind: %s' % args.work)
    return status


if __name__ == '__main__':
    sys.exit(main())
