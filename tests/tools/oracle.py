"""What must be true at the far side, given what clients were promised."""
import json

from runs import disorder, ledgers, progress, sequence, wait_for


class Oracle:
    """What must be true afterwards."""

    def __init__(self, far, steps, ended=True, foreign=None):
        """`ended`: every step has come to its end; `foreign`: {name: closes by somebody else}."""
        self.far, self.steps, self.ended, self.foreign = far, steps, ended, foreign or {}
        self.faults = []
        self.acked = self.delivered = self.lost = self.twice = 0
        self.state = far.state(lines=False)

    def check(self, good, text):
        if not good:
            self.faults.append(text)
            if len(self.faults) < 30:
                progress('WRONG: ' + text)

    def step(self, number, step):
        name = 'acct/' + step.key
        record = self.state['records'].get(name, {'opens': 0, 'wipes': 0, 'closes': 0, 'events': []})
        blob = self.state['blobs'].get(name)
        where = 'step %d (%s, %s)' % (number, step.kind, ', '.join(record['events']))
        self.check(not step.failed, '%s: calls failed: %s' % (where, step.failed))
        self.check(step.closed or not self.ended, '%s: its close was never acknowledged' % where)
        # An open whose outcome is unknown is sent again when the stream is not there: it may have been ended meanwhile.
        self.check(record['opens'] <= 1 + self.foreign.get(name, 0), '%s: opened %d times' % (where, record['opens']))
        self.check(record['wipes'] == 0, '%s: wiped' % where)
        self.check(record['closes'] <= 1 + self.foreign.get(name, 0), '%s: closed %d times' % (where, record['closes']))
        live = sequence(self.far.lines('acct', step.key), number)
        wrong, twice = disorder(live)
        self.check(not wrong, '%s: %d live lines out of order' % (where, wrong))
        over = step.closed or step.blob is not None or self.ended
        stored = self.stored(number, step, blob, where) if over else []
        missing = step.acked - set(live) - set(stored)
        self.check(not missing, '%s: lost %d lines, %s…' % (where, len(missing), sorted(missing)[:5]))
        hidden = step.acked - set(stored) if over else ()
        self.check(not hidden, '%s: the stored log lacks %d lines, %s…'
                   % (where, len(hidden), sorted(hidden)[:5]))
        self.acked += len(step.acked)
        self.lost += len(missing)
        self.delivered += len(step.acked) - len(missing)
        self.twice += twice

    def stored(self, number, step, blob, where):
        """Sequence numbers in the stored log; checks what can be known of it."""
        if blob is None:
            self.check(False, '%s: no log is stored' % where)
            return []
        if step.blob:
            self.check(blob['content_sha256'] == step.blob[1], '%s: the stored log is not the one uploaded (%d of %d bytes)'
                       % (where, blob['content_size'], step.blob[0]))
        fullest = {}
        for via, size, encoding in blob['history']:
            self.check(size >= fullest.get(encoding, 0), '%s: less stored over more: %s' % (where, blob['history']))
            fullest[encoding] = max(size, fullest.get(encoding, 0))
        text = self.far.blob('acct', step.key)
        numbers = sequence([json.loads(row)['out'] for row in text.splitlines()], number)
        wrong, _ = disorder(numbers)
        self.check(not wrong, '%s: the stored log is out of order' % where)
        return numbers

    def run(self):
        for number, step in sorted(self.steps.items()):
            self.step(number, step)


def settle(far, gateway, oracle_faults, seconds):
    """Until nothing waits and every stream is closed upstream."""
    def quiet():
        found = ledgers(gateway)
        return found and found[0]['spooled'] == 0 and found[1]['spooled'] == 0 and far.counts()['streams'] == 0
    try:
        wait_for(quiet, seconds, 0.2, what='the end of all deliveries')
    except AssertionError as e:
        oracle_faults.append('%s; %s; %s' % (e, ledgers(gateway), list(far.state(lines=False)['streams'])[:5]))
