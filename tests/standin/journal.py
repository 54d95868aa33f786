"""A journal of what was changed at the far side, so that its state at a moment can be made again."""
import json
import os

from . import gojson

CHANGES = ('open', 'lines', 'close', 'blob', 'delete-blob', 'put-object')


def note(options, port, call, req, body):
    """One line of JSON for a call that is about to be executed, stamped with the size of a file that grows."""
    if not options.journal or call not in CHANGES:
        return
    try:
        mark = os.stat(options.journal_mark).st_size
    except OSError:
        mark = 0
    with open(options.journal, 'a') as f:
        f.write(json.dumps({'mark': mark, 'port': port, 'call': call, 'method': req.method, 'path': req.path,
                            'query': req.query, 'headers': req.headers, 'body': body.decode('latin-1')}) + '\n')


class Past:
    """A request from a journal, as far as handlers look at one."""

    def __init__(self, entry):
        self.method, self.path, self.query = entry['method'], entry['path'], entry['query']
        self.headers = [tuple(pair) for pair in entry['headers']]

    def get(self, name):
        return next((value for key, value in self.headers if key.lower() == name), None)


def entries(path, until=None):
    with open(path) as f:
        for line in f:
            entry = json.loads(line)
            if until is None or entry['mark'] <= until:
                yield entry


def replay(app, path, until):
    """Executes again what was executed until that mark; the number of calls."""
    n = 0
    for entry in entries(path, until):
        req, body = Past(entry), entry['body'].encode('latin-1')
        if entry['port'] == 'store':
            app.store.put_object(req, body)
            app.log.records[app.store.name_of(req)].events.append('object %d' % len(body))
        else:
            app.log.calls[entry['call']](gojson.query(req.query), req, body)
        n += 1
    return n
