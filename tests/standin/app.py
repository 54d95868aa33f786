"""Puts the parts together: which request is which call, under which fault, and what is counted."""
import asyncio
import collections
import hashlib
import time

from . import delegate, faults, gojson, journal, logservice
from .store import ObjectStore
from .web import Gone, Listener

CALLS = {
    ('POST', 'stream'): 'open', ('PUT', 'stream'): 'lines', ('GET', 'stream'): 'tail',
    ('DELETE', 'stream'): 'close', ('GET', 'stream/info'): 'info',
    ('POST', 'blob'): 'blob', ('GET', 'blob'): 'get-blob', ('DELETE', 'blob'): 'delete-blob',
    ('DELETE', 'internal/blob'): 'delete-blob', ('GET', 'blob/exists'): 'exists',
    ('POST', 'blob/link/upload'): 'link', ('POST', 'blob/link/download'): 'download-link',
    ('GET', 'blob/download'): 'download', ('POST', 'blob/download'): 'download',
    ('GET', 'token'): 'token', ('POST', 'rca'): 'rca',
    ('GET', 'healthz'): 'health', ('GET', 'ready/healthz'): 'health'}


class Options:
    """What can be set at the start and changed through the control port (POST /config)."""

    def __init__(self):
        self.keys_param = 'keys'            # name of the key-list parameter of a close
        self.token_form = None              # regular expression a token must match, or None
        self.ping_interval = 30.0           # seconds between pings of a tail
        self.tail_max = 3600.0              # seconds a tail may last
        self.transcode = True               # GCS-like: inflate gzip objects, answer x-goog-hash
        self.blob_get_inflates = True       # GET /blob returns the content of gzip objects
        self.joined_hash = True             # one x-goog-hash field with both values, or two
        self.strict_entity_headers = False  # refuse Content-Type and Content-MD5 at the store
        self.link_form = 'aws'              # or goog
        self.store_style = 'path'           # or virtual (bucket in the host name)
        self.bucket, self.store_prefix = 'harness-logs', 'logs/'
        self.store_host = None              # host name written into links, default the address
        self.decode_zstd = False            # behave like a hub that understands zstd bodies
        self.ws_echo = True                 # echo every text that is no heartbeat
        self.ws_headers = []                # more headers of the upgrade's answer
        self.extra_headers = []             # on every answer of the main port
        self.idle_timeout = None            # seconds; idle connections get FIN after that
        self.max_requests = None            # requests per connection, then FIN unannounced
        self.max_streams = 250              # HTTP/2 streams at once, for new connections
        self.log_bodies = 0                 # bytes of each body kept in GET /log
        self.journal = None                 # file that every change is written to, see journal.py
        self.journal_mark = None            # and the file whose size it is stamped with

    def update(self, values):
        for name, value in values.items():
            if not hasattr(self, name) or name.startswith('_'):
                raise ValueError('unknown option: ' + name)
            setattr(self, name, value)


class App:
    """The whole far side. Needs a running event loop."""

    def __init__(self, options=None):
        self.options = options or Options()
        self.offset = 0.0
        self.main = self.stores = None
        self.faults = faults.Faults()
        self.reset()

    def clock(self):
        return time.time() + self.offset

    def reset(self):
        """Forgets everything but configuration, listeners and connection counters."""
        base = getattr(getattr(self, 'store', None), 'base', None)
        self.store = ObjectStore(self.clock, self.options)
        self.store.base = base
        self.log = logservice.LogService(self.clock, self.store, self.options)
        self.delegates = delegate.Delegates(self)
        self.faults.clear()
        self.clear_log()

    def clear_log(self):
        self.requests = collections.deque(maxlen=20000)
        self.counts = collections.defaultdict(collections.Counter)
        self.started = collections.Counter()
        self.running = self.running_peak = 0
        self.writing = collections.Counter()        # stream name -> line calls under way
        self.overlaps = collections.Counter()       # stream name -> line calls that overlapped
        self.sequence = getattr(self, 'sequence', 0)

    def listen(self, host='127.0.0.1', port=0, store_port=0, tls=None, store_tls=None):
        self.main = Listener(self.handle, tls, host, port)
        self.stores = Listener(self.handle_store, store_tls, host, store_port)
        self.main.open()
        self.stores.open()
        self.configured()

    def configured(self):
        """Carries changed options to the listeners."""
        for listener in (self.main, self.stores):
            listener.idle_timeout = self.options.idle_timeout
            listener.max_requests = self.options.max_requests
            listener.max_streams = self.options.max_streams
        self.main.extra_headers = [tuple(pair) for pair in self.options.extra_headers]
        scheme = 'https' if self.stores.tls else 'http'
        self.store.base = '%s://%s:%d' % (scheme, self.options.store_host or self.stores.host,
                                          self.stores.port)

    # -- bookkeeping

    def begin(self, req, port, call, params):
        self.sequence += 1
        self.started[call] += 1
        self.running += 1
        self.running_peak = max(self.running_peak, self.running)
        entry = {'seq': self.sequence, 'at': time.time(), 'port': port, 'call': call,
                 'method': req.method, 'target': req.target, 'headers': req.headers,
                 'version': req.version, 'conn': req.conn_id, 'stream': req.stream_id,
                 'tls': req.tls, 'status': None}
        if req.peer_cert:
            entry['peer_cert'] = req.peer_cert
        if 'accountID' in params:
            entry['account'], entry['key'] = params['accountID'], params.get('key')
        self.requests.append(entry)
        return entry

    def end(self, req, entry, call):
        self.running -= 1
        status = req.status if req.answered else 'none'
        entry['status'], entry['body_len'] = status, req.received
        entry['sent'], entry['took'] = req.sent, time.time() - entry['at']
        self.counts[call][status] += 1

    # -- main port

    def classify(self, req):
        path = req.path
        at = path.find('/log-service/')
        if at >= 0:
            rest = path[at + 13:].strip('/')
            return CALLS.get((req.method, rest), 'other')
        if '/stream/delegate/' in path or '/delegate-service/' in path:
            return 'ws'
        return 'api'

    async def handle(self, req):
        call = self.classify(req)
        params = gojson.query(req.query)
        entry = self.begin(req, 'main', call, params)
        try:
            if call in ('api', 'ws', 'tail'):
                await self.stream_call(req, call, params, entry)
            else:
                await self.log_call(req, call, params, entry)
        finally:
            self.end(req, entry, call)

    def answerer(self, req):
        async def answer(status, headers, body):
            await req.respond(status, headers, body)
        return answer

    async def log_call(self, req, call, params, entry):
        def execute(body):
            return self.execute(req, call, params, body, entry)

        name = None
        if call == 'lines':
            name = self.log.name(params.get('accountID', ''), params.get('key', ''))
            self.writing[name] += 1
            if self.writing[name] > 1:
                self.overlaps[name] += 1
        try:
            fault = self.faults.pick(call, params, req) if self.faults.armed else None
            if fault is None:
                body = await req.read()
                status, headers, data = execute(body)
                await req.respond(status, headers, data)
            else:
                entry['fault'] = fault.kind
                await faults.apply(faults.Exchange(self, req, call, params, fault, execute,
                                                   self.answerer(req)))
        finally:
            if name is not None:
                self.writing[name] -= 1

    def execute(self, req, call, params, body, entry):
        """Does what a log call asks for; also the work of executions after a lost answer."""
        entry['executed'] = entry.get('executed', 0) + 1
        if self.options.log_bodies:
            entry['body'] = body[:self.options.log_bodies].decode('latin-1')
        if call == 'health':
            return 200, (), b'OK'
        if call == 'other':
            return 404, (), b'404 page not found\n'
        if call == 'token':
            return self.log.token(params, req)
        try:
            self.log.authenticate(params, req, call)
        except logservice.Failure as exc:
            return logservice.error(exc.status, exc.message)
        if self.options.decode_zstd and req.get('content-encoding') == 'zstd':
            import zstandard
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        journal.note(self.options, 'main', call, req, body)
        return self.log.calls[call](params, req, body)

    async def stream_call(self, req, call, params, entry):
        """Calls whose answers are streams: tail, upgrade, relayed requests."""
        fault = self.faults.pick(call, params, req) if self.faults.armed else None
        if fault is not None:
            entry['fault'] = fault.kind
            if fault.kind == 'delay' and call != 'api':
                await asyncio.sleep(fault.args.get('seconds', 1))
            else:
                def execute(body):
                    if call == 'api':
                        return delegate.echo_answer(req, hashlib.sha256(body).hexdigest())
                    return 200, [('Content-Type', 'text/event-stream')], b': ping\n'
                await faults.apply(faults.Exchange(self, req, call, params, fault, execute,
                                                   self.answerer(req)))
                return
        if call == 'api':
            await delegate.echo(req)
        elif call == 'ws':
            await self.delegates.upgrade(req, entry)
        else:
            try:
                self.log.authenticate(params, req, call)
            except logservice.Failure as exc:
                await req.respond(*logservice.error(exc.status, exc.message))
                return
            try:
                await self.log.tail(params, req)
            except Gone:
                entry['tail'] = 'client gone'
                raise

    # -- object store port

    async def handle_store(self, req):
        call = {'PUT': 'put-object', 'GET': 'get-object'}.get(req.method, 'other')
        params = {'object': self.store.name_of(req) or ''}
        entry = self.begin(req, 'store', call, {})
        entry['object'] = params['object']
        self.store.watch(req)

        def execute(body):
            entry['executed'] = entry.get('executed', 0) + 1
            reason = self.store.verify(req)
            if reason is not None:
                entry['refused'] = reason
                return self.store.refuse(reason)
            journal.note(self.options, 'store', call, req, body)
            if call == 'put-object':
                result = self.store.put_object(req, body, params.get('wrong_crc', False))
                self.log.records[params['object']].events.append('object %d' % len(body))
                return result
            if call == 'get-object':
                return self.store.get_object(req)
            return 405, (), b''

        async def answer(status, headers, body):
            transcoded = req.method == 'GET' and any(
                name == 'x-goog-stored-content-encoding' for name, _ in headers)
            if not transcoded:
                await req.respond(status, headers, body)
                return
            await req.start(status, headers)            # a transcoded answer has no length
            await req.write(body)
            await req.finish()

        try:
            fault = self.faults.pick(call, params, req) if self.faults.armed else None
            if fault is None:
                await answer(*execute(await req.read()))
            else:
                entry['fault'] = fault.kind
                await faults.apply(faults.Exchange(self, req, call, params, fault, execute,
                                                   answer))
        finally:
            self.end(req, entry, call)

    # -- what others do to a stream (HP 7a)

    async def foreign(self, spec):
        """SaaS itself writing to and closing a stream, past any gateway."""
        if spec.get('after'):
            await asyncio.sleep(spec['after'])
        name = self.log.name(spec['account'], spec['key'])
        if spec.get('open'):
            self.log.open_stream(name)
        if spec.get('write'):
            stream = self.log.find(name)
            lines = [line if isinstance(line, dict) else
                     {'level': 'info', 'pos': 0, 'out': line, 'time': gojson.ZERO_TIME,
                      'args': None} for line in spec['write']]
            if stream is not None:
                self.log.append(stream, lines)
            else:
                self.log.records[name].discarded += [line['out'] for line in lines]
        if spec.get('close'):
            names = self.log.scan(name) if spec.get('prefix') else [name]
            return self.log.close_names(names, bool(spec.get('snapshot')))[0]
        return 204

    def refuse(self, seconds, which=('main', 'store'), drop=True):
        """Both ports (or one) refuse connections from now on, for a while."""
        listeners = [{'main': self.main, 'store': self.stores}[name] for name in which]
        for listener in listeners:
            listener.shut(drop)
        for listener in listeners:
            asyncio.get_running_loop().call_later(seconds, listener.open)
