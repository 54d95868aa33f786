#!/usr/bin/python3
"""The log service refuses connections for as long as it is asked for while 200 steps write; then it
comes back. Every client call must have succeeded, the ledger must have balanced each second, and
everything must have arrived, once and in order.

    TAILRACE=…/tailrace LOAD=…/tests/tools/load outage.py [--seconds 60] [--steps 200]"""
import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from runs import Disk, Gateway, Harness, Load, Sampler, disorder, ledgers, progress, promised, \
    sequence, wait_for  # noqa: E402

LINES = 10                      # of each 4 KiB call
RSS_LIMIT_KB = 256 << 10        # memory.limit (64 MiB) and what 120,000 waiting records cost
RING = 5000                     # lines that the log service keeps for a snapshot (HP 1.5)


class Verdict:
    def __init__(self):
        self.faults = []

    def check(self, good, text):
        if not good:
            self.faults.append(text)
            progress('WRONG: ' + text)


def arrived(far, steps, verdict):
    """(delivered, lost, out of order) over all steps, against what was acknowledged."""
    delivered = lost = disordered = 0
    for number, step in steps.items():
        numbers = sequence(far.lines('acct', step.key), number)
        wrong, repeated = disorder(numbers)
        verdict.check(not repeated, 'step %d: %d lines arrived twice' % (number, repeated))
        delivered += len(set(numbers))
        lost += len(step.acked - set(numbers))
        disordered += wrong
    return delivered, lost, disordered


def close_all(far, gateway, args, steps, verdict, directory):
    """The steps end now, with a snapshot each, as SaaS's delegates do."""
    result = Load(gateway.url, directory / 'ack-end', steps=args.steps, kinds='end', run='outage',
                  spread=500).result(60)
    verdict.check(not result['failed'], '%d closes failed' % result['failed'])
    try:
        wait_for(lambda: far.counts()['streams'] == 0, 60, 0.2, what='the closes upstream')
    except AssertionError as e:
        verdict.check(False, str(e))
    for number, step in steps.items():
        blob = far.blob('acct', step.key) or b''
        verdict.check(blob.count(b'\n') == min(RING - (len(step.acked) < RING), len(step.acked)),
                      'step %d: a snapshot of %d lines' % (number, blob.count(b'\n')))


def run(args, directory, verdict):
    with Harness() as far:
        far.stop()
        with Gateway(directory / 'gateway', far.url, spool={'limit': '10GiB'},
                     log={'level': 'info'}) as gateway:
            sampler, disk = Sampler(gateway), Disk(directory)
            load = Load(gateway.url, directory / 'ack', steps=args.steps, interval=1000, lines=LINES,
                        bytes=4096, seconds=args.seconds, kinds='open', run='outage')
            result = load.result(args.seconds + 120)
            steps = promised(directory / 'ack')
            progress('load: %s' % result)
            progress('meanwhile fdatasync took %s here' % disk.stop())
            verdict.check(not result['failed'] and not any(result['retries'].values()),
                          'client calls failed: %d, tried again: %s' % (result['failed'], result['retries']))
            verdict.check(far.counts()['requests'] == {}, 'the log service was not down')
            sampler.look()
            verdict.check(ledgers(gateway)[0]['spooled'] == result['lines'], 'the spool holds something else')
            far.start()
            back = time.monotonic()
            try:
                wait_for(lambda: sum(far.counts()['lines'].values()) >= result['lines'],
                         60 + args.seconds, 0.2, what='delivery')
                gateway.wait_delivered(30)
            except AssertionError as e:
                verdict.check(False, str(e))
            progress('delivered after %.1f s' % (time.monotonic() - back))
            delivered, lost, disordered = arrived(far, steps, verdict)
            close_all(far, gateway, args, steps, verdict, directory)
            sampler.stop()
            sampler.look()
            lines = ledgers(gateway)[0]
            counts = far.counts()
            progress('ledger sampled %d times, last %s; peak RSS %.0f MiB; upstream %s'
                     % (sampler.samples, lines, sampler.peak_kb / 1024, counts['requests']))
            verdict.check(not sampler.unbalanced, 'the ledger did not balance: %s' % sampler.unbalanced[:3])
            verdict.check(sampler.samples >= args.seconds * 0.8, 'too few samples of the ledger')
            verdict.check(sampler.peak_kb < RSS_LIMIT_KB, 'memory: %d kB' % sampler.peak_kb)
            verdict.check(lines['delivered'] == lines['accepted'] == result['lines'], 'the ledger: %s' % lines)
            verdict.check(delivered == result['lines'], '%d of %d lines delivered' % (delivered, result['lines']))
            verdict.check(counts['wipes'] == 0, '%d streams were wiped' % counts['wipes'])
            asked, acked = result['put']['asked'], result['put']['done']
            verdict.check(asked == acked and acked >= args.steps * args.seconds, 'acknowledged %d' % acked)
            return ('outage: %d puts, %d acked, p99 %.1f ms, %d delivered, %d lost, %d out of order'
                    % (asked, acked, result['p99_ms'], delivered // LINES, lost, disordered)), lost + disordered


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--seconds', type=int, default=60)
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--keep', help='work in this directory and leave it')
    args = parser.parse_args()
    directory = Path(args.keep or tempfile.mkdtemp(prefix='outage-'))
    directory.mkdir(parents=True, exist_ok=True)
    verdict = Verdict()
    try:
        line, bad = run(args, directory, verdict)
    finally:
        if not args.keep:
            shutil.rmtree(directory, ignore_errors=True)
    print(line)
    return 1 if bad or verdict.faults else 0


if __name__ == '__main__':
    sys.exit(main())
