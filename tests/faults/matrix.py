"""What can go wrong upstream, at which call, and what is to become of it. Data only; faults.py runs it.

A word says what upstream saw of the faulted call, and what became of what it carried:

    once        one request, executed
    retried     requests that had no effect, then one that had
    repeated    executed more than once, since nobody can know: the answers were lost
    kept        an open that was executed and whose answer was lost: lines tell, it is not sent again
    reopened    an open that was lost: the first lines tell (200 to each of four), and it is sent once more
    dead        given up and kept as a dead letter; the stream goes on
    superseded  lines did not go, and the finished log that has them did
    any         whatever of these; that all has arrived is checked in every cell
"""

CALLS = ('open', 'lines', 'blob', 'link', 'put-object', 'close')
PROTOCOLS = ('HTTP/1.1', 'HTTP/2')

# What is known after a fault decides what may be done (HP 1.5, 1.9, 7a).
NOT_EXECUTED = 'certainly not executed: every call may be sent again'
UNKNOWN = ('nobody knows: an open must not be sent twice (it wipes, HP 1.5), lines may come twice and are counted, '
           'uploads and closes may be repeated')
NOT_NOW = 'an answer that says "not now" and that nothing happened: every call is sent again'

RETRIED = {call: 'retried' for call in CALLS}
ONCE = {call: 'once' for call in CALLS}
ANY = {call: 'any' for call in CALLS}
SILENT = dict(RETRIED, open='reopened')             # unknown, and nothing was executed
LOST = dict({call: 'repeated' for call in CALLS}, open='kept')      # unknown, and it was


class Fault:
    """`how`: arguments of a fault of the stand-in (kind, count, ...), or the name of something that happens to the
    host as a whole. `expect`: {call: word}; a call that is not in it has no cell. `why` is the reason."""

    def __init__(self, name, how, expect, why, **args):
        self.name, self.how, self.expect, self.why, self.args = name, how, expect, why, args


def status(name, code, expect, why, count=2, **args):
    return Fault(name, 'status', expect, why, code=code, count=count, **args)


FAULTS = (
    Fault('refused', 'refused', RETRIED, NOT_EXECUTED),
    Fault('DNS failure', 'dns', RETRIED, NOT_EXECUTED),
    Fault('TLS failure', 'tls', RETRIED, NOT_EXECUTED),
    Fault('stalled', 'stall', SILENT, UNKNOWN),
    Fault('stalled in answer', 'stall', LOST, UNKNOWN, where='headers', execute=True),
    Fault('slow', 'slow', ONCE, 'slower than usual is no failure'),
    status('500', 500, RETRIED, 'the service says so when it could not do it (HP 1.2); of lines a part may be there '
           '(HP 1.5), which is counted'),
    status('502', 502, SILENT, 'a gateway between says nothing of what happened behind it', count=1),
    status('502, executed', 502, LOST, 'the same, and it was executed', count=1, execute=True),
    status('503, Retry-After', 503, RETRIED, NOT_NOW, retry_after=1),
    status('503', 503, RETRIED, NOT_NOW),
    status('429', 429, RETRIED, NOT_NOW),
    Fault('400 credential', 'credential', RETRIED,
          'all failures of credentials are 400 (HP 1.3): asked by GET /blob/exists, then the stream is held until the '
          'credential, or a newer one, is taken. At the store it is the link that is refused, and a fresh one is asked '
          'for (HP 1.9)'),
    Fault('413', 'too large', dict(open='superseded', lines='dead', blob='dead', link='retried',
                                   **{'put-object': 'dead', 'close': 'retried'}),
          'what is too large will always be: a batch is split down to the record, which is a dead letter, as is a blob. '
          'Calls without a body are not too large: something between says so. An open is then left out'),
    Fault('poisoned, 400', 'poisoned', dict(lines='dead'), 'a record that is refused though the credential is good is '
          'found by sending the batch one by one, and buried; the stream goes on', code=400),
    Fault('poisoned, 500', 'poisoned', dict(lines='superseded'), 'a record at which the service fails for ever, while it '
          'takes those of others, waits for the finished log (HP 1.2: no refusal); the stream goes on', code=500),
    Fault('reset mid-body', 'reset', SILENT, UNKNOWN),
    Fault('GOAWAY, taken', 'goaway', ONCE, 'the stream is below the last one: it is answered'),
    Fault('GOAWAY, not taken', 'goaway', SILENT, 'the stream is above the last one: not executed (RFC 9113 6.8); but '
          'the client library does not tell this from a connection that was lost. HTTP/1.1: closed unanswered',
          execute=False),
    Fault('lost response', 'execute_lost', LOST, UNKNOWN),
    Fault('corrupted answer', 'corrupt', LOST, UNKNOWN, execute=True),
    Fault('truncated answer', 'corrupt', LOST, UNKNOWN, mode='truncated', execute=True),
    Fault('flapping', 'flap', ANY, 'up and down faster than an answer comes'),
    status('early 503', 503, RETRIED, NOT_NOW, when='before_body'),
    status('early 204', 204, {'blob': 'retried', 'put-object': 'retried'},
           'success of a body that has not been sent is none (HP 2.6)', when='before_body', count=1),
)

# Seconds that some cells take by their nature: they begin first.
LONG = {('poisoned, 500', 'lines'): 40, ('400 credential', None): 30, ('413', 'open'): 28,
        ('stalled in answer', 'close'): 26, ('502, executed', 'close'): 26, ('lost response', 'close'): 26,
        ('corrupted answer', 'close'): 26, ('truncated answer', 'close'): 26}


def cells(only=None):
    """[(fault, call, protocol)] of the matrix, the long ones first."""
    found = [(fault, call, protocol) for fault in FAULTS for call in CALLS for protocol in PROTOCOLS
             if call in fault.expect and (not only or only(fault.name, call, protocol))]
    return sorted(found, key=lambda cell: -max(LONG.get((cell[0].name, cell[1]), 0), LONG.get((cell[0].name, None), 0)))
