"""The log service: streams with their traps, blobs, links (HP 1). No I/O in here, except that a
tail waits for lines. Time comes from `clock`, which a test may set forward."""
import asyncio
import collections
import fnmatch
import hashlib
import posixpath
import re
from urllib.parse import quote

from . import gojson

RING = 5000                     # entries of a stream that upstream keeps
LIFETIME = 5 * 3600             # seconds from creation; writes do not extend it
SCAN = 200                      # keys a close by prefix reaches at most
NO_CACHE = [('Content-Type', 'application/json'),
            ('Cache-Control', 'no-cache, no-store, no-transform, must-revalidate, private, '
                              'max-age=0'),
            ('Expires', 'Thu, 01 Jan 1970 00:00:00 GMT'), ('Pragma', 'no-cache'),
            ('X-Accel-Expires', '0')]
EATEN = ('application/x-www-form-urlencoded', 'multipart/form-data')


class Failure(Exception):
    """An answer other than success: status and error_msg."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


def error(status, message):
    return status, NO_CACHE, gojson.dumps({'error_msg': message}, indent=2)


def eaten(req):
    """Whether Go's form parsing would have consumed the body before the handler saw it."""
    kind = (req.get('content-type') or '').split(';')[0].strip().lower()
    return kind in EATEN


class Stream:
    """One life of a stream: a ring that begins with the dummy entry, and its tails."""

    def __init__(self, name, created, generation):
        self.name, self.created, self.generation = name, created, generation
        self.ring = collections.deque([None], maxlen=RING)
        self.total = 0
        self.tails = []
        self.closed = False

    def add(self, line):
        self.ring.append(line)
        self.total += 1

    def lines(self):
        return [line for line in self.ring if line is not None]


class Record:
    """Everything that ever happened to a stream name; what tests assert on."""

    def __init__(self):
        self.opens = self.wipes = self.closes = self.snapshots = self.writes = 0
        self.expired = self.discarded_calls = self.close_misses = 0
        self.generations = 0
        self.lines = []             # every line ever stored, in order: (generation, line)
        self.discarded = []         # `out` of lines answered 200 and dropped
        self.events = []            # short history: open, write N, close, blob N ...


class Blob:
    __slots__ = ('data', 'encoding', 'headers', 'via', 'puts', 'history', 'md5', 'digests')

    def __init__(self):
        self.puts, self.history, self.digests = 0, [], None


class LogService:
    """State and semantics. Handlers return (status, headers, body)."""

    def __init__(self, clock, store, options):
        self.clock, self.store, self.options = clock, store, options
        self.streams = {}
        self.records = collections.defaultdict(Record)
        self.bad_tokens, self.expired_tokens = set(), set()
        self.token_accounts = {}
        self.info_calls = 0
        self.snapshot_fail = False
        self.calls = {
            'open': self.open, 'lines': self.write, 'close': self.close, 'info': self.info,
            'blob': self.blob_put, 'get-blob': self.blob_get, 'delete-blob': self.blob_delete,
            'exists': self.blob_exists, 'link': self.link_upload,
            'download-link': self.link_download, 'download': self.zip_download, 'rca': self.rca}

    # -- names and authentication

    @staticmethod
    def name(account, key):
        return account + '/' + key

    def authenticate(self, params, req, call):
        """Raises Failure(400) for everything, as the service does."""
        account = params.get('accountID', '')
        if not account:
            raise Failure(400, 'no account ID in query params')
        token = req.get('x-api-key') or req.get('x-harness-token') \
            or params.get('X-Harness-Token', '')
        if not token:
            raise Failure(400, 'no token in header or query params')
        if token in self.expired_tokens:
            raise Failure(400, 'token is expired')
        form = self.options.token_form
        if token in self.bad_tokens or (form and not re.fullmatch(form, token)):
            raise Failure(400, 'token in request not authorized for receiving tokens')
        if self.token_accounts.get(token, account) != account:
            raise Failure(400, 'account ID in query params does not match the token')
        if call not in ('download', 'rca', 'token') and not params.get('key'):
            raise Failure(400, 'no key exists in the URL')

    # -- streams

    def find(self, name):
        """The living stream of a name, or None; expires it if its time has come."""
        stream = self.streams.get(name)
        if stream is not None and self.clock() - stream.created >= LIFETIME:
            self.records[name].expired += 1
            self.records[name].events.append('expired')
            self.end(stream)
            return None
        return stream

    def end(self, stream):
        stream.closed = True
        if self.streams.get(stream.name) is stream:
            del self.streams[stream.name]
        self.wake(stream)

    @staticmethod
    def wake(stream):
        tails, stream.tails = stream.tails, []
        for waiter in tails:
            if not waiter.done():
                waiter.set_result(None)

    def open(self, params, req, body):
        self.open_stream(self.name(params['accountID'], params['key']))
        return 204, (), b''

    def open_stream(self, name):
        old, record = self.find(name), self.records[name]
        record.opens += 1
        record.generations += 1
        if old is not None:
            record.wipes += 1
            # Tails of the old stream stay silent: they are not woken.
        record.events.append('wipe' if old is not None else 'open')
        self.streams[name] = Stream(name, self.clock(), record.generations)

    def write(self, params, req, body):
        name = self.name(params['accountID'], params['key'])
        stream = self.find(name)
        if stream is None:
            self.discard(name, req, body)
            return 200, (), b''
        if eaten(req):
            return error(400, 'EOF')
        try:
            lines = gojson.lines(body)
        except gojson.BadJSON as exc:
            return error(400, str(exc))
        self.append(stream, lines)
        return 204, (), b''

    def discard(self, name, req, body):
        """Existence is checked first: the body is not even looked at."""
        record = self.records[name]
        record.discarded_calls += 1
        try:
            outs = [] if eaten(req) else [line['out'] for line in gojson.lines(body)]
        except gojson.BadJSON:
            outs = []
        record.discarded += outs
        record.events.append('discard %d' % len(outs))

    def append(self, stream, lines):
        record = self.records[stream.name]
        record.writes += 1
        for line in lines:
            stream.add(line)
            record.lines.append((stream.generation, line))
        record.events.append('write %d' % len(lines))
        if stream.tails:
            self.wake(stream)

    def write_half(self, params, body):
        """The partial failure of HP 1.5: some lines stored, 500 answered."""
        stream = self.find(self.name(params['accountID'], params['key']))
        if stream is not None:
            try:
                lines = gojson.lines(body)
            except gojson.BadJSON as exc:
                return error(400, str(exc))
            self.append(stream, lines[:len(lines) // 2])
        return error(500, 'write failed')

    def close(self, params, req, body):
        account, key = params['accountID'], params['key']
        listed = params.get(self.options.keys_param)
        if params.get('prefix') == 'true':
            names = self.scan(self.name(account, key))
        elif listed:
            names = [self.name(account, part) for part in listed.split(',') if part]
        else:
            names = [self.name(account, key)]
        return self.close_names(names, params.get('snapshot') == 'true')

    def scan(self, prefix):
        """Redis SCAN with a trailing '*': other glob characters in the key work as such."""
        if any(ch in prefix for ch in '*?['):
            found = [n for n in self.streams if fnmatch.fnmatchcase(n, prefix + '*')]
        else:
            found = [n for n in self.streams if n.startswith(prefix)]
        return [name for name in found if self.find(name) is not None][:SCAN]

    def close_names(self, names, snapshot):
        if snapshot:
            for name in names:
                stream = self.find(name)
                if stream is None:
                    self.records[name].close_misses += 1
                    return error(500, 'stream: not found')
                if self.snapshot_fail:
                    return error(500, 'cannot copy the stream')
                self.snapshot(stream)
        missing = False
        for name in names:
            stream = self.find(name)
            record = self.records[name]
            if stream is None:
                record.close_misses += 1
                missing = True
                continue
            record.closes += 1
            record.events.append('close')
            self.end(stream)
        return error(500, 'stream: not found') if missing else (204, (), b'')

    def snapshot(self, stream):
        data = b''.join(gojson.dumps(line) for line in stream.lines())
        self.records[stream.name].snapshots += 1
        self.records[stream.name].events.append('snapshot %d' % len(stream.lines()))
        self.put_blob(stream.name, data, 'snapshot')

    def info(self, params, req, body):
        self.info_calls += 1
        streams = {name: {'size': len(s.ring), 'subscribers': len(s.tails),
                          'ttl': '%ds' % max(0, LIFETIME - (self.clock() - s.created))}
                   for name, s in self.streams.items()}
        return 200, NO_CACHE[:1], gojson.dumps({'streams': streams}, indent=2)

    # -- blobs

    @staticmethod
    def object_name(name):
        """A path join: '//' and '..' vanish here, though not in stream names."""
        return posixpath.normpath('/' + name).lstrip('/')

    def put_blob(self, name, data, via, encoding=None, headers=()):
        blob = self.store.put(self.object_name(name), data, via, encoding, headers)
        self.records[name].events.append('blob %d %s' % (len(data), via))
        return blob

    def blob_put(self, params, req, body):
        self.put_blob(self.name(params['accountID'], params['key']),
                      b'' if eaten(req) else body, 'blob')
        return 204, (), b''

    def blob(self, params):
        return self.store.get(self.object_name(self.name(params['accountID'], params['key'])))

    def blob_get(self, params, req, body):
        blob = self.blob(params)
        if blob is None:
            return error(404, 'the object does not exist')
        data = blob.data
        if blob.encoding == 'gzip' and self.options.blob_get_inflates:
            data = self.store.inflate(blob)
        return 200, [('Access-Control-Allow-Origin', '*')], data

    def blob_delete(self, params, req, body):
        name = self.object_name(self.name(params['accountID'], params['key']))
        if self.store.get(name) is None:
            return error(404, 'the object does not exist')
        self.store.delete(name)
        return 204, (), b''

    def blob_exists(self, params, req, body):
        text = b'true' if self.blob(params) is not None else b'false'
        return 200, [('Content-Type', 'text/plain; charset=utf-8')], text

    def link(self, method, params):
        name = self.object_name(self.name(params['accountID'], params['key']))
        link = self.store.sign(method, name)
        body = gojson.dumps({'link': link, 'expires': 3600000000000}, indent=2)
        return 200, NO_CACHE, body

    def link_upload(self, params, req, body):
        return self.link('PUT', params)

    def link_download(self, params, req, body):
        return self.link('GET', params)

    def zip_download(self, params, req, body):
        prefix = params.get('prefix')
        if not prefix:
            return error(404, 'no prefix in query params')
        if not re.search(r'runSequence:\d', prefix):
            return error(400, 'prefix must contain a run sequence')
        return 200, NO_CACHE, gojson.dumps(
            {'link': self.store.sign('GET', 'zip/' + quote(prefix, safe='/')),
             'status': 'success', 'expire': '2030-01-01T00:00:00Z'}, indent=2)

    def rca(self, params, req, body):
        return 200, NO_CACHE, gojson.dumps({'rca': 'no insight', 'size': len(body)}, indent=2)

    # -- token, tail

    def token(self, params, req):
        account = params.get('accountID', '')
        if not account:
            return error(400, 'no account ID in query params')
        if not (req.get('x-api-key') or req.get('x-harness-token')):
            return error(400, 'no token in header')
        digest = hashlib.sha256(account.encode('utf-8', 'surrogateescape')).hexdigest()[:16]
        return 200, [('Content-Type', 'text/plain; charset=utf-8')], digest.encode()

    async def tail(self, params, req):
        """GET /stream. Backlog first, then lines as they come, a ping in silence."""
        stream = self.find(self.name(params['accountID'], params['key']))
        await req.start(200, [('Content-Type', 'text/event-stream'),
                              ('Cache-Control', 'no-cache'), ('Connection', 'keep-alive'),
                              ('X-Accel-Buffering', 'no'), ('Access-Control-Allow-Origin', '*')])
        await req.write(b': ping\n')
        if stream is not None:
            await self.follow(stream, req)
        await req.write(b'event: error\ndata: eof\n')
        await req.finish()

    async def follow(self, stream, req):
        loop = asyncio.get_running_loop()
        end = loop.time() + self.options.tail_max
        sent = 0                    # lines of this stream's life already shown
        while True:
            behind = stream.total - sent
            if behind:
                lines = stream.lines()[-behind:]
                sent = stream.total
                for line in lines:
                    await req.write(b'data: ' + gojson.dumps(line) + b'\n')
                continue
            if stream.closed or loop.time() >= end:
                return
            waiter = loop.create_future()
            stream.tails.append(waiter)
            limit = min(self.options.ping_interval, max(0, end - loop.time()))
            done, _ = await asyncio.wait({waiter}, timeout=limit)
            if not done:
                if waiter in stream.tails:
                    stream.tails.remove(waiter)
                if loop.time() < end:
                    await req.write(b': ping\n')
