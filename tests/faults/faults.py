#!/usr/bin/python3
"""Every fault of matrix.py at every call, over both protocols (the client's and upstream's): a stream lives its life
through a gateway of its own while one of its calls fails upstream. What the client saw, what upstream saw, what it has
at the end, and the ledger are checked; the last line is `faults: N cells, N passed, 0 failed`.

    TAILRACE=.../tailrace faults.py [--only TEXT] [--jobs 12] [--keep DIR]

--only: cells whose name (FAULT/CALL/PROTOCOL) holds the text."""
import argparse
import contextlib
import json
import queue
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'tools'), str(HERE.parent / 'integration')]

from runs import Gateway, Harness, balance, disorder, ledgers, progress, wait_for   # noqa: E402
from calls import Api, row                          # noqa: E402
from names import Names                             # noqa: E402
from standin.certs import CA                        # noqa: E402
import matrix                                       # noqa: E402

CLOSE_TRIES = 4                 # answers of "not found" that end a close
PROMISE_S = 10                  # HP 2.4: the head of every answer
TIMEOUT_S = 3                   # upstream.timeout: what a stalled call costs here
CELL_S = 60                     # the fault and what follows from it are over by then
NAMES_LIVE_S = 2.2              # an address that was looked up serves so long (TTL 1 s, and another in the client)
HOST, STORE = 'log.faults.test', 'store.faults.test'
STEP, OTHER, ACCOUNT = 'acct/step', 'acct/other', 'acct'
LINES = ['line %d\n' % i for i in range(3)]
LARGE = 'large %s\n' % ('x' * 4000)
POISONED = 'poisoned\n'
LINES_MAX = 2000                # what answers 413 takes
BLOB_SMALL = 40 << 10           # goes over the protocol of the cell; larger ones always over HTTP/1.1
BLOB_LARGE = 8 << 20            # more than fits into all buffers on the way
METRIC = {'put-object': 'put_object'}


class Wrong(Exception):
    pass


def ensure(good, text, *args):
    if not good:
        raise Wrong(text % args)


def blob_of(texts, size):
    rows = [json.dumps(row(text, i)) + '\n' for i, text in enumerate(texts)]
    filling = json.dumps(row('x' * 1000, len(rows))) + '\n'
    return (''.join(rows) + filling * (size // len(filling))).encode()


class Api2(Api):
    """The same calls over HTTP/2."""

    def request(self, method, target, body=None, headers=None):
        argv = ['curl', '-sS', '--http2-prior-knowledge', '-m', str(self.timeout), '-X', method, '-H', 'Content-Type:',
                '-w', '\n%{http_code} %{http_version}', 'http://%s:%d%s' % (self.host, self.port, target)]
        for name, value in (headers if headers is not None else {'X-Harness-Token': self.token}).items():
            argv += ['-H', '%s: %s' % (name, value)]
        if body is not None or method in ('POST', 'PUT'):
            argv += ['--data-binary', '@-']
        done = subprocess.run(argv, input=body or b'', stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        text, _, status = done.stdout.decode().rpartition('\n')
        ensure(done.returncode == 0 and status.endswith(' 2'), 'curl: %d, "%s" %s', done.returncode, status,
               done.stderr.decode())
        return int(status.split()[0]), text, {}


class Stand:
    """A stand-in of one protocol, used for one cell after another."""

    def __init__(self, protocol, certificate, ca):
        self.protocol, self.ca = protocol, ca
        self.api = Api2 if protocol == 'HTTP/2' else Api
        alpn = 'h2' if protocol == 'HTTP/2' else 'http/1.1'
        self.far = Harness(tls=certificate, store_tls=True, alpn=alpn, store_host=STORE)
        self.good_names = {HOST: ['127.0.0.1'], STORE: ['127.0.0.1']}
        self.names = Names(self.good_names, ttl=1)

    def renew(self):
        self.far.reset()
        self.far.start()
        self.far.tokens(clear=True)
        self.names.table = self.good_names

    def close(self):
        self.far.close()
        self.names.close()


class Cell:
    def __init__(self, stand, directory, fault, call):
        self.far, self.stand, self.fault, self.call = stand.far, stand, fault, call
        self.statuses, self.word, self.attempts, self.failed, self.superseded = [], '?', 0, 0, 0
        self.expected = fault.expect[call]
        self.which = {'main': call != 'put-object', 'store': call == 'put-object'}
        self.large = fault.args.get('when') == 'before_body'
        self.texts = list(LINES)
        self.others = 0                 # lines of another stream
        if fault.how == 'too large' and call == 'lines':
            self.texts[1] = LARGE
        elif fault.how == 'poisoned':
            self.texts[1] = POISONED
        self.blob = blob_of(self.texts, BLOB_LARGE if self.large else BLOB_SMALL)
        self.gateway = Gateway(
            directory, 'https://%s:%d' % (HOST, self.far.port),
            harness={'upload-gzip': False}, workers=1,
            upstream={'ca': str(stand.ca), 'timeout': '%ds' % TIMEOUT_S, 'resolvers': [stand.names.address]})
        self.api = stand.api(self.gateway.log_url)

    # -- the client's side

    def did(self, what, expected):
        start = time.monotonic()
        status = what()[0]
        took = time.monotonic() - start
        self.statuses.append(status)
        ensure(status == expected, 'the client got %s, not %s', status, expected)
        ensure(took < PROMISE_S, 'the client waited for %.1f s', took)

    def do_open(self):
        self.did(lambda: self.api.open(STEP), 204)

    def do_lines(self):
        for i, text in enumerate(self.texts):
            self.did(lambda: self.api.put(STEP, text, start=i), 204)

    def do_upload(self):
        if self.call in ('link', 'put-object'):
            self.did(lambda: self.api.put_link(STEP, self.blob), 200)
        else:
            self.did(lambda: self.api.blob(STEP, self.blob), 204)

    def do_close(self):
        self.did(lambda: self.api.delete(STEP), 204)

    # -- what is waited for

    def wait(self, condition, what, limit=CELL_S):
        try:
            return wait_for(condition, limit, 0.05, what=what)
        except AssertionError as e:
            raise Wrong(str(e)) from None

    def ledger(self, family=0):
        found = ledgers(self.gateway)
        ensure(found, 'no metrics')
        for one in found:
            ensure(balance(one) == 0, 'the ledger does not balance: %s', one)
        return found[family]

    def requests(self, call=None):
        """Those of the stream, oldest first."""
        return self.far.log(call=call, key=STEP)

    def executed(self, call):
        return [r for r in self.requests(call) if r.get('executed') and r['status'] != 400]

    def event(self, name):
        return self.gateway.metric('stream_events_total', event=name)

    def opened(self):
        self.wait(lambda: self.executed('open'), 'the open upstream')

    def delivered(self):
        """Nothing of the lines waits, or what waits does so for the finished log."""
        self.wait(lambda: self.ledger()['spooled'] == 0 or self.event('absent') or self.event('set_aside'),
                  'delivery of the lines')

    def uploaded(self):
        self.wait(lambda: self.ledger(1)['spooled'] == 0, 'delivery of the blob')

    def closed(self):
        self.wait(lambda: ('%s/%s' % (ACCOUNT, STEP)) not in self.far.state(key=STEP, lines=False)['streams'] and
                  self.executed('close'), 'the close upstream')

    # -- faults

    def unanswered(self):
        name = METRIC.get(self.call, self.call)
        return self.gateway.metric('upstream_requests_total', call=name, code='none')

    def begin(self):
        """The fault is there; returns what waits until it has been met, and lifts it."""
        return getattr(self, 'fault_' + self.fault.how.replace(' ', '_'), self.fault_armed)()

    def host_fault(self, on, off):
        on()
        if self.call == 'open':         # on a kept connection that is just breaking it may have been executed
            self.did(lambda: self.api.put(OTHER, 'other\n'), 204)
            self.others += 1
            self.wait(lambda: self.gateway.metric('upstream_requests_total', call='lines', code='none'), 'the break')
        return lambda: (self.wait(lambda: self.unanswered() >= 2, 'two failures'), off())

    def fault_refused(self):
        return self.host_fault(lambda: self.far.stop(**self.which), lambda: self.far.start(**self.which))

    def fault_tls(self):
        return self.host_fault(lambda: self.far.alert(**self.which), lambda: self.far.greet(**self.which))

    def fault_dns(self):
        gone = STORE if self.call == 'put-object' else HOST

        def on():
            self.stand.names.table = {k: v for k, v in self.stand.good_names.items() if k != gone}
            time.sleep(NAMES_LIVE_S)    # nothing tells from outside when the last answer has lapsed

        def off():
            self.stand.names.table = self.stand.good_names
        return self.host_fault(on, off)

    def arm(self, kind, count=1, **args):
        number = self.far.fault(kind, self.call, count=count, key=STEP, **args)

        def hits():
            known = self.far.faults()
            return sum(f['hits'] for f in known['armed'] + known['spent'] if f['id'] == number)

        def lift():
            self.wait(lambda: hits() >= (count or 1), 'the fault')
            self.far.clear_faults(number)
        return lift

    def fault_armed(self):
        args = dict(self.fault.args)
        if self.fault.how == 'execute_lost' and self.stand.protocol == 'HTTP/2':
            args['how'] = 'stream'
        return self.arm(self.fault.how, **args)

    def fault_slow(self):
        if self.call in ('blob', 'put-object'):
            return self.arm('slow_body', rate=len(self.blob))
        return self.arm('delay', seconds=1, where='after')

    def fault_too_large(self):
        if self.call == 'lines':
            lift = self.arm('status', count=None, code=413, over=LINES_MAX)
            return lambda: (self.delivered(), lift())
        if self.call in ('blob', 'put-object'):
            lift = self.arm('status', count=None, code=413)
            return lambda: (self.uploaded(), lift())
        return self.arm('status', count=2 if self.call == 'open' else 1, code=413)

    def fault_poisoned(self):
        """Lines with that text are answered so for ever, while another stream's are taken."""
        args = dict(self.fault.args, contains=POISONED.strip())
        lift = self.arm('status', count=None, **args)

        def settled():
            self.did(lambda: self.api.put(OTHER, 'other %d\n' % self.others, start=self.others), 204)
            self.others += 1
            time.sleep(0.5)             # a pace, not a wait
            return self.event('set_aside') or self.ledger()['dead']
        return lambda: (self.wait(settled, 'the end of the poisoned record'),
                        self.wait(self.others_gone, 'the rest'), lift())

    def others_gone(self):
        return POISONED not in self.far.lines(ACCOUNT, STEP) and \
            len(self.far.lines(ACCOUNT, STEP)) == len(self.texts) - 1

    def fault_credential(self):
        """The token is refused from now on, and its streams are held: then a newer one of the account comes."""
        if self.call == 'put-object':
            return self.arm('status', code=403, body='<Error><Code>SignatureDoesNotMatch</Code></Error>')
        self.far.tokens(bad=[self.api.token])

        def lift():
            self.wait(lambda: self.gateway.metric('credentials_refused') == 1, 'a refused credential')
            ensure('level=error' in self.gateway.log() and 'refuses this account' in self.gateway.log(),
                   'the log does not tell of the credential')
            newer = self.stand.api(self.gateway.log_url, token='newer-token')
            self.did(lambda: newer.open(OTHER), 204)
            newer.close()
        return lift

    def fault_flap(self):
        self.far.fault('delay', self.call, count=None, key=STEP, seconds=0.1, where='after')

        def flap():
            for _ in range(5):
                self.far.stop(**self.which)
                time.sleep(0.15)
                self.far.start(**self.which)
                time.sleep(0.25)
        thread = threading.Thread(target=flap, daemon=True)
        thread.start()
        return lambda: (thread.join(), self.far.clear_faults())

    # -- a life

    def prove_credential(self):
        """So that an open is not asked about first."""
        self.api.open(OTHER)
        self.wait(lambda: self.far.log(call='open', key=OTHER), 'the first open')
        self.wait(lambda: self.gateway.metric('upstream_requests_total', call='open', code='204'), 'its answer')

    def run(self):
        upload = 'blob' if self.call not in ('link', 'put-object') else self.call
        self.prove_credential()
        for call, do, done in (('open', self.do_open, self.opened), ('lines', self.do_lines, self.delivered),
                               (upload, self.do_upload, self.uploaded), ('close', self.do_close, self.closed)):
            if call != self.call:
                do()
                done()
                continue
            lift = self.begin()
            do()
            lift()
            if call != 'open':
                done()
        self.wait(lambda: self.ledger()['spooled'] == 0 and self.ledger(1)['spooled'] == 0, 'an empty spool')
        self.wait(self.quiet, 'the last answer')
        self.judge()

    def quiet(self):
        """A close whose answer was lost finds nothing, and asks for a while whether that is true (HP 7a)."""
        metric = self.gateway.metric
        return metric('upstream_requests_total', call='close', code='204') or \
            metric('upstream_requests_total', call='close', code='500') >= CLOSE_TRIES

    # -- the verdict

    def judge(self):
        lines, blobs = self.ledger(), self.ledger(1)
        self.attempts = len(self.requests(self.call))
        self.failed = self.failures()
        self.superseded = lines['superseded']
        self.word = self.what_happened(lines, blobs)
        ensure(self.expected in ('any', self.word), 'expected: %s', self.expected)
        self.judge_ledger(lines, blobs, self.expected == 'dead')
        self.judge_upstream(lines)
        if self.call == 'put-object' and self.fault.how == 'credential':
            ensure(len(self.requests('link')) == 2, 'no fresh link')
        ensure(self.far.state(lines=False)['errors'] == [], 'the stand-in failed')

    def failures(self):
        """Requests of the faulted call that did not succeed, by what the gateway counts."""
        metric, name = self.gateway.metric, METRIC.get(self.call, self.call)
        good = {'lines': ('204',), 'link': ('200',), 'put-object': ('200',)}.get(self.call, ('200', '204'))
        other = metric('upstream_requests_total', call=name) - sum(
            metric('upstream_requests_total', call=name, code=code) for code in good)
        return max(int(other), self.attempts - 1 if self.call != 'lines' else 0)

    def what_happened(self, lines, blobs):
        executed = len(self.executed(self.call))
        if lines['dead'] or blobs['dead']:
            return 'dead'
        if lines['superseded'] or lines['settled']:
            return 'superseded' if lines['superseded'] else 'settled'
        if self.call == 'open' and self.event('reopened'):
            return 'reopened'
        if self.call == 'lines':        # several requests are several calls
            twice = disorder([self.texts.index(out) for out in self.far.lines(ACCOUNT, STEP)])[1]
            return 'repeated' if twice else 'retried' if self.failed else 'once'
        if self.attempts == 1 and executed == 1 and not self.failed:
            return 'once'
        if self.call == 'open' and executed == 1 and self.attempts == 1 and self.expected == 'kept':
            return 'kept'
        if self.call == 'close':        # a close that comes again finds nothing
            executed = sum(1 for r in self.executed('close') if self.expected == 'repeated' or r['status'] == 204)
        return 'retried' if executed <= 1 else 'repeated'

    def judge_ledger(self, lines, blobs, dead):
        n = len(self.texts) + self.others
        ensure(lines['accepted'] == n and blobs['accepted'] == 1, 'accepted: %s %s', lines, blobs)
        ensure(lines['refused'] == lines['late'] == blobs['broken'] == 0, 'astray: %s %s', lines, blobs)
        ensure(lines['dead'] + blobs['dead'] == int(dead), 'dead: %s %s', lines, blobs)
        ensure(lines['delivered'] + lines['superseded'] + lines['settled'] + lines['dead'] == n, 'lines: %s', lines)

    def judge_upstream(self, lines):
        name = '%s/%s' % (ACCOUNT, STEP)
        state = self.far.state(key=STEP)
        record = state['records'][name]
        ensure(record['wipes'] == 0, 'the stream was wiped')
        ensure(record['opens'] == (self.word != 'superseded' or self.call != 'open'), '%d opens', record['opens'])
        order = [text for text in self.texts if text in record['lines']]
        numbers = [self.texts.index(out) for out in record['lines']]
        wrong, twice = disorder(numbers)
        ensure(not wrong, 'out of order: %s', numbers)
        ensure(len(order) + self.others == lines['delivered'], 'upstream has %d lines, %s', len(order), lines)
        resent = int(self.gateway.metric('lines_resent_total'))
        ensure(twice <= resent, '%d lines came twice, %d are counted', twice, resent)
        stored = self.far.blob(ACCOUNT, STEP) or b''
        if self.word == 'dead' and self.call != 'lines':
            outs = [json.loads(one)['out'] for one in stored.splitlines()]
            ensure(outs == self.texts, 'the snapshot has %d lines', len(outs))
        else:
            ensure(stored == self.blob, 'the blob has %d bytes of %d', len(stored), len(self.blob))
        self.judge_end()

    def judge_end(self):
        seen = self.requests()
        ends = [i for i, r in enumerate(seen) if r['call'] == 'close' and r.get('executed') and r['status'] != 400]
        ensure(ends, 'there was no close')
        after = [r['call'] for r in seen[ends[0] + 1:] if r['call'] != 'close']
        ensure(not after, 'after the close: %s', after)

    def close(self, well):
        self.api.close()
        if not well:
            self.gateway.kill()
            return
        self.gateway.close()
        with contextlib.closing(sqlite3.connect(self.gateway.directory / 'spool' / 'spool.db')) as spool:
            left, = spool.execute('SELECT count(*) FROM record WHERE id NOT IN (SELECT id FROM gone)').fetchone()
            buried, = spool.execute('SELECT count(*) FROM dead').fetchone()
        ensure(left == 0, '%d records are left in the spool', left)
        ensure(buried == (self.word == 'dead'), '%d dead letters', buried)

    def text(self):
        count = {'retried': self.failed, 'repeated': self.failed, 'dead': 1,
                 'superseded': self.superseded}.get(self.word)
        return self.word if count is None else '%s %d' % (self.word, count)


def name_of(fault, call, protocol):
    return '%s/%s/%s' % (fault.name, call, protocol.replace('/', ''))


def run_cell(stand, directory, fault, call):
    """(passed, text of the cell, what was wrong)"""
    cell = None
    try:
        stand.renew()
        cell = Cell(stand, directory, fault, call)
        cell.run()
        cell.close(True)
    except Exception as e:              # whatever it is: the others go on
        if cell:
            cell.close(False)
        why = str(e) if isinstance(e, (Wrong, AssertionError)) else traceback.format_exc()
        return False, cell.text() if cell else '?', why
    shutil.rmtree(directory, ignore_errors=True)
    return True, cell.text(), ''


def work(stand, waiting, directory, results):
    while True:
        try:
            fault, call, protocol = waiting.get_nowait()
        except queue.Empty:
            return
        name = name_of(fault, call, protocol)
        start = time.monotonic()
        passed, text, why = run_cell(stand, directory / name.replace('/', '_').replace(' ', '-'), fault, call)
        if not passed:
            progress('FAIL %s (%s): %s' % (name, text, why))
        results[name] = passed, text, time.monotonic() - start


def grid(results, protocol):
    width = max(len(f.name) for f in matrix.FAULTS) + 2
    print('\n%s' % protocol.ljust(width) + ''.join(call.ljust(15) for call in matrix.CALLS))
    for fault in matrix.FAULTS:
        if not any(name_of(fault, call, protocol) in results for call in matrix.CALLS):
            continue
        texts = []
        for call in matrix.CALLS:
            passed, text, _ = results.get(name_of(fault, call, protocol), (True, '-', 0))
            texts.append((text if passed else 'FAIL ' + text).ljust(15))
        print((fault.name.ljust(width) + ''.join(texts)).rstrip())


def run(args, directory):
    ca = CA(directory)
    certificate = ca.issue(HOST, STORE)
    waiting = {protocol: queue.Queue() for protocol in matrix.PROTOCOLS}
    found = matrix.cells(lambda *cell: not args.only or args.only in '/'.join(cell).replace('HTTP/', 'HTTP'))
    for cell in found:
        waiting[cell[2]].put(cell)
    stands, threads, results = [], [], {}
    for i in range(args.jobs):
        protocol = matrix.PROTOCOLS[i % len(matrix.PROTOCOLS)]
        if waiting[protocol].qsize() <= i // len(matrix.PROTOCOLS):
            continue
        stands.append(Stand(protocol, certificate, ca.ca))
        threads.append(threading.Thread(target=work, args=(stands[-1], waiting[protocol], directory, results)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stand in stands:
        stand.close()
    return found, results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--only', help='cells whose name holds this')
    parser.add_argument('--jobs', type=int, default=12, help='cells at once')
    parser.add_argument('--keep', help='work in this directory and leave it')
    args = parser.parse_args()
    directory = Path(args.keep or tempfile.mkdtemp(prefix='faults-'))
    directory.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    found, results = run(args, directory)
    for protocol in matrix.PROTOCOLS:
        grid(results, protocol)
    passed = sum(1 for ok, _, _ in results.values() if ok)
    slowest = max(results.items(), key=lambda item: item[1][2], default=('none', (0, 0, 0)))
    print('\n%.0f s; the slowest: %s, %.1f s' % (time.monotonic() - start, slowest[0], slowest[1][2]))
    if not args.keep and passed == len(found):
        shutil.rmtree(directory, ignore_errors=True)
    elif not args.keep:
        progress('left behind: %s' % directory)
    print('faults: %d cells, %d passed, %d failed' % (len(found), passed, len(found) - passed))
    return 0 if found and passed == len(found) else 1


if __name__ == '__main__':
    sys.exit(main())
