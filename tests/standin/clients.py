"""Stand-ins for the four programs that send logs to Harness, with their faults (HP 2, 3.2, 4.8, 9).

    LegacyClient        lite-engine's HTTPClient; its upload retries send what is left of a buffer
    OptimizedClient     lite-engine's OptimizedHTTPClient; HTTP/1.1 only, retries nearly everything
    GoCIClient          the older Kubernetes CI add-on: no deadlines, no snapshot
    JavaDelegateClient  the delegate: no blob, pos 0, a line every 100 ms flush, close by snapshot

`client.step(account, key)` gives the driver of one step: open, write lines, close. Each keeps what
it was told (acks), what went wrong, and what it believes: compare that with what arrived.
`speed` divides every interval and timeout, so that a test need not take ten seconds to time out; `hurry`,
if given, the timeouts instead: 1 for tests in which nothing is to time out, on a slow machine neither."""
import asyncio
import collections
import json
import random
import time
from datetime import datetime, timezone
from urllib.parse import quote

from .transport import Body, Transport, TransportError, go_headers, java_headers

FLUSH = 1.0                     # seconds between flushes of a step
HISTORY = 5 * 1024 * 1024       # bytes of NDJSON kept for the blob; the oldest lines go first
MAX_LINE = 70 * 1024
CUT = '... (log line truncated)'
RETRIED = ('eof', 'timeout', 'deadline', 'reset', 'pipe', 'refused')


class CallFailed(Exception):
    """A call of the API that its client takes for failed."""

    def __init__(self, call, status=None, error=None):
        super().__init__('%s: %s' % (call, status if status is not None else error))
        self.call, self.status, self.error = call, status, error


def now_rfc3339():
    """The present with nine digits of fraction, as Go writes it."""
    stamp = time.time_ns()
    whole = datetime.fromtimestamp(stamp // 1000000000, timezone.utc)
    return whole.strftime('%Y-%m-%dT%H:%M:%S') + '.%09dZ' % (stamp % 1000000000)


_HTML = str.maketrans({'<': '\\u003c', '>': '\\u003e', '&': '\\u0026',
                       '\u2028': '\\u2028', '\u2029': '\\u2029'})


def go_json(value):
    """One value as Go's encoder writes it, without the final newline."""
    return json.dumps(value, ensure_ascii=False, separators=(',', ':')).translate(_HTML)


class Backoff:
    """Exponential back-off with Go's defaults: 0.5 s, x1.5, +-50 %, at most 60 s apart."""

    def __init__(self, limit, speed, hurry):
        self.interval, self.speed = 0.5 / speed, speed
        self.end = None if limit is None else time.monotonic() + limit / hurry

    async def pause(self):
        """Waits for the next try; False if there is to be none."""
        seconds = self.interval * random.uniform(0.5, 1.5)
        self.interval = min(self.interval * 1.5, 60 / self.speed)
        if self.end is not None and time.monotonic() + seconds > self.end:
            return False
        await asyncio.sleep(seconds)
        return True


class Record:
    """One call as the client saw it, all its tries together."""
    __slots__ = ('call', 'key', 'ok', 'status', 'error', 'tries', 'latency', 'size', 'version',
                 'at', 'sizes')

    def __init__(self, call, key):
        self.call, self.key, self.at = call, key, time.monotonic()
        self.ok, self.status, self.error = False, None, None
        self.tries, self.latency, self.size, self.version = 0, 0.0, 0, None
        self.sizes = []             # body bytes that each try set out to send

    def __repr__(self):
        return 'Record(%s)' % ', '.join('%s=%r' % (n, getattr(self, n)) for n in self.__slots__)


class Client:
    """What the clients share. Subclasses set the policy."""
    trim_slash = True
    want_h2 = True
    per_host = 2
    header_timeout = 10.0
    dial_timeout = 30.0
    headers = staticmethod(go_headers)
    replay = False
    content_type = None

    def __init__(self, url, token, speed=1.0, ca=None, cert=None, proxy=None, resolve=None,
                 h2=None, indirect=False, transport=None, hurry=None):
        self.url = url[:-1] if self.trim_slash and url.endswith('/') else url
        self.token, self.speed, self.indirect = token, speed, indirect
        self.hurry = hurry = hurry or speed
        if h2 is None:
            h2 = self.want_h2 and cert is None      # Go: custom TLS settings turn HTTP/2 off
        self.transport = transport or Transport(
            ca=ca, cert=cert, h2=h2, per_host=self.per_host, proxy=proxy, resolve=resolve,
            headers=self.headers, replay=self.replay,
            header_timeout=None if self.header_timeout is None else self.header_timeout / hurry,
            dial_timeout=self.dial_timeout / hurry)
        self.records = []

    def close_connections(self):
        self.transport.close()

    def target(self, path, account, key, more=''):
        """The key goes into the query as it is, slashes and colons included."""
        return '%s%s?accountID=%s&key=%s%s' % (self.url, path, account, key, more)

    async def attempt(self, record, method, url, body=None, timeout=None, length=True,
                      content_type=None):
        """One try; returns the Response or raises TransportError; keeps the books."""
        record.tries += 1
        record.sizes.append(len(body) if body is not None else 0)
        try:
            answer = await self.transport.request(
                method, url, self.token, body, None if timeout is None else timeout / self.hurry,
                content_type, length)
        except TransportError as exc:
            record.status, record.error = None, exc.kind
            raise
        record.status, record.error, record.version = answer.status, None, answer.version
        return answer

    def finish(self, record, ok):
        record.ok, record.latency = ok, time.monotonic() - record.at
        self.records.append(record)
        if not ok:
            raise CallFailed(record.call, record.status, record.error)

    async def single(self, record, method, url, body, timeout, **more):
        """A call without any retry; 2xx is success."""
        try:
            answer = await self.attempt(record, method, url, body, timeout, **more)
        except TransportError:
            self.finish(record, False)
        self.finish(record, answer.status <= 299)
        return answer

    def outcomes(self):
        """call -> Counter of 'ok' and failures, for a quick look."""
        result = collections.defaultdict(collections.Counter)
        for record in self.records:
            result[record.call]['ok' if record.ok else str(record.status or record.error)] += 1
        return {call: dict(counter) for call, counter in result.items()}


class LegacyClient(Client):
    """lite-engine's HTTPClient. One object serves a whole process: share it between steps."""
    limits = {'open': (30, 10), 'link': (10, 10), 'upload': (60, 60), 'blob': (60, 60)}
    write_timeout = close_timeout = 15.0

    def step(self, account, key, **options):
        return GoStep(self, account, key, **options)

    async def retry(self, record, method, url, body, limit, loose):
        """Tries until the status is below 500, the deadline is over or the back-off gives up.
        `loose`: any status below 500 is success. The same Body goes into every try: what a try
        has read from it is missing in the next one."""
        timeout, patience = limit
        backoff = Backoff(patience, self.speed, self.hurry)
        begun = time.monotonic()
        while True:
            left = None
            if timeout is not None:
                left = timeout - (time.monotonic() - begun) * self.hurry
            answer = None
            try:
                answer = await self.attempt(record, method, url, body, left)
                if answer.status < 500:
                    self.finish(record, loose or answer.status <= 299)
                    return answer
            except TransportError:
                pass
            if timeout is not None and (time.monotonic() - begun) * self.hurry >= timeout:
                self.finish(record, False)
            if not await backoff.pause():
                self.finish(record, False)

    async def open(self, account, key):
        await self.retry(Record('open', key), 'POST', self.target('/stream', account, key),
                         None, self.limits['open'], False)

    async def write(self, account, key, data):
        record = Record('lines', key)
        record.size = len(data)
        await self.single(record, 'PUT', self.target('/stream', account, key), Body(data),
                          self.write_timeout)

    async def link(self, account, key):
        record = Record('link', key)
        answer = await self.retry(record, 'POST', self.target('/blob/link/upload', account, key),
                                  None, self.limits['link'], False)
        return self.link_of(record, answer)

    def link_of(self, record, answer):
        """An answer that is no JSON with a link is fatal for the blob."""
        try:
            link = json.loads(answer.body)['link']
        except (ValueError, KeyError, TypeError):
            record.ok, record.error = False, 'json'
            raise CallFailed('link', answer.status, 'json') from None
        return link

    def upload_body(self, data):
        return Body(data)

    async def upload(self, account, key, data):
        """The whole log; indirect through the service, else by a signed link."""
        if self.indirect:
            url, call = self.target('/blob', account, key), 'blob'
            method = 'POST'
        else:
            url, call = await self.link(account, key), 'upload'
            method = 'PUT'
        record = Record(call, key)
        record.size = len(data)
        await self.retry(record, method, url, self.upload_body(data), self.limits[call], True)

    async def close(self, account, key, snapshot=False):
        await self.single(Record('close', key), 'DELETE',
                          self.target('/stream', account, key, '&snapshot=true' if snapshot
                                      else ''), None, self.close_timeout, length=False)


class OptimizedClient(LegacyClient):
    """lite-engine's OptimizedHTTPClient: HTTP/1.1, up to 20 idle connections, whole retries."""
    want_h2 = False
    per_host = 20
    dial_timeout = 10.0
    limits = {'open': 60, 'lines': 15, 'link': 60, 'upload': 120, 'blob': 120, 'close': 60}

    def __init__(self, *args, **options):
        options['h2'] = False
        super().__init__(*args, **options)

    async def persist(self, record, method, url, data=None, loose=False, length=True):
        """Retries 5xx and the listed transport errors with a fresh body until the deadline."""
        limit = self.limits[record.call]
        backoff = Backoff(limit, self.speed, self.hurry)
        begun = time.monotonic()
        while True:
            left = limit - (time.monotonic() - begun) * self.hurry
            body = None if data is None else Body(data)
            try:
                answer = await self.attempt(record, method, url, body, max(left, 0.001),
                                            length=length)
                if answer.status < 500:
                    self.finish(record, loose or answer.status <= 299)
                    return answer
            except TransportError as exc:
                if exc.kind not in RETRIED and not (loose and exc.kind == 'closed'):
                    self.finish(record, False)
            if (time.monotonic() - begun) * self.hurry >= limit or not await backoff.pause():
                self.finish(record, False)

    async def open(self, account, key):
        await self.persist(Record('open', key), 'POST', self.target('/stream', account, key))

    async def write(self, account, key, data):
        record = Record('lines', key)
        record.size = len(data)
        await self.persist(record, 'PUT', self.target('/stream', account, key), data)

    async def link(self, account, key):
        record = Record('link', key)
        answer = await self.persist(record, 'POST',
                                    self.target('/blob/link/upload', account, key))
        return self.link_of(record, answer)

    async def upload(self, account, key, data):
        if self.indirect:
            method, url, call = 'POST', self.target('/blob', account, key), 'blob'
        else:
            method, url, call = 'PUT', await self.link(account, key), 'upload'
        record = Record(call, key)
        record.size = len(data)
        await self.persist(record, method, url, data, loose=True)

    async def close(self, account, key, snapshot=False):
        await self.persist(Record('close', key), 'DELETE',
                           self.target('/stream', account, key, '&snapshot=true' if snapshot
                                       else ''), length=False)


class GoCIClient(LegacyClient):
    """The older Kubernetes client: Go's default transport, no deadlines but the back-off's."""
    trim_slash = False
    header_timeout = None
    write_timeout = close_timeout = None
    limits = {'open': (None, 10), 'link': (None, 60), 'upload': (None, 60), 'blob': (None, None)}

    def step(self, account, key, **options):
        options.setdefault('keep_history', True)
        options.setdefault('args', {})
        return GoStep(self, account, key, **options)

    async def close(self, account, key, snapshot=False):
        await super().close(account, key, False)


class GoStep:
    """One step's log writer of the Go clients: pending lines, a flush a second, history.

    keep_history: go on collecting the blob when the open has failed (the older client does);
    skip_open: no open and no blob, the close takes a snapshot; skip_close: only a flush."""

    def __init__(self, client, account, key, keep_history=False, skip_open=False,
                 skip_close=False, args=None, interval=FLUSH):
        self.client, self.account, self.key = client, account, key
        self.keep_history, self.skip_open, self.skip_close = keep_history, skip_open, skip_close
        self.args, self.interval = args, interval / client.speed
        self.pos = 0
        self.partial = ''
        self.pending, self.history, self.history_size = [], collections.deque(), 0
        self.opened, self.stopped, self.ending = skip_open, False, False
        self.written, self.acked, self.failed, self.dropped = [], [], [], []
        self.errors = []
        self.blob, self.blob_ok, self.step_failed = None, None, False
        self.wakeup = asyncio.Event()
        self.tasks = set()
        self.ticker = None

    def start(self):
        """Begins the step: the open runs beside it. Returns the open's task."""
        self.ticker = asyncio.ensure_future(self.tick())
        if self.skip_open:
            return None
        return self.background(self.open())

    def background(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def open(self):
        try:
            await self.client.open(self.account, self.key)
            self.opened = True
            self.wakeup.set()
        except CallFailed as exc:
            self.errors.append(exc)
            self.stopped = not self.keep_history
            self.pending.clear()

    def write(self, text):
        """Output of the step, of any shape: lines are made of it at newlines."""
        *lines, self.partial = (self.partial + text).split('\n')
        for line in lines:
            self.add(line + '\n')

    def add(self, text):
        if len(text.encode()) > MAX_LINE:
            text = text.encode()[:MAX_LINE].decode('utf-8', 'ignore') + CUT
        self.written.append(text)
        if self.stopped:
            self.dropped.append(text)
            return
        row = go_json({'level': 'info', 'pos': self.pos, 'out': text, 'time': now_rfc3339(),
                       'args': self.args})
        self.pos += 1
        encoded = (row + '\n').encode('utf-8', 'replace')
        self.history.append(encoded)
        self.history_size += len(encoded)
        while self.history_size > HISTORY:
            self.history_size -= len(self.history.popleft())
        if self.opened or not any(e.call == 'open' for e in self.errors):
            self.pending.append((text, row))
        self.wakeup.set()

    async def tick(self):
        while not self.ending:
            await self.wakeup.wait()
            self.wakeup.clear()
            await asyncio.sleep(self.interval)
            if not self.ending and self.opened and self.pending:
                self.background(self.flush())

    async def flush(self):
        """Sends what is pending. Whatever comes of it, it is not sent again."""
        if not self.opened or not self.pending:
            return
        batch, self.pending = self.pending, []
        texts = [text for text, _ in batch]
        data = ('[' + ','.join(row for _, row in batch) + ']\n').encode('utf-8', 'replace')
        try:
            await self.client.write(self.account, self.key, data)
            self.acked += texts
        except CallFailed as exc:
            self.failed += texts
            self.errors.append(exc)

    async def close(self):
        """The end of the step: final flush, blob, close. It does not wait for a flush or an open
        still under way. Returns whether the step would be reported as failed."""
        self.ending = True
        if self.ticker is not None:
            self.ticker.cancel()
        if self.partial:
            self.add(self.partial + '\n')
            self.partial = ''
        await self.flush()
        if not self.skip_close:
            if not self.skip_open:
                await self.upload()
            try:
                await self.client.close(self.account, self.key, self.skip_open)
            except CallFailed as exc:
                self.errors.append(exc)
        return self.step_failed

    async def upload(self):
        self.blob = b''.join(self.history)
        try:
            await self.client.upload(self.account, self.key, self.blob)
            self.blob_ok = True
        except CallFailed as exc:
            self.blob_ok, self.step_failed = False, True
            self.errors.append(exc)

    async def settle(self):
        """Waits for calls that outlive the step (a late open, a flush under way)."""
        while self.tasks:
            await asyncio.gather(*list(self.tasks), return_exceptions=True)

    async def run(self, lines, rate=None):
        """A whole step: `lines` at `rate` a second (None: at once). Returns close()'s value."""
        self.start()
        begun = time.monotonic()
        for count, line in enumerate(lines):
            self.write(line if line.endswith('\n') else line + '\n')
            if rate:
                ahead = begun + (count + 1) / rate - time.monotonic()
                if ahead > 0.001:
                    await asyncio.sleep(ahead)
        return await self.close()


class JavaDelegateClient(Client):
    """The delegate's log streaming over OkHttp: 5 s to connect, 10 s to read, one hidden repeat
    on a broken pooled connection, no other. The key is percent-encoded."""
    headers = staticmethod(java_headers)
    dial_timeout = 5.0
    replay = True
    per_host = 5
    content_type = 'application/json; charset=UTF-8'
    trim_slash = True

    def target(self, path, account, key, more=''):
        return '%s%s?accountID=%s&key=%s%s' % (self.url, path, quote(account, safe='-_.*'),
                                               quote(key, safe='-_.*'), more)

    def step(self, account, key, **options):
        return JavaStep(self, account, key, **options)

    async def open(self, account, key):
        await self.single(Record('open', key), 'POST', self.target('/stream', account, key),
                          None, None)

    async def write(self, account, key, data):
        record = Record('lines', key)
        record.size = len(data)
        await self.single(record, 'PUT', self.target('/stream', account, key), Body(data), None,
                          content_type=self.content_type)

    async def close(self, account, key, snapshot=True, prefix=False):
        more = '&snapshot=%s&prefix=%s' % (str(snapshot).lower(), str(prefix).lower())
        await self.single(Record('close', key), 'DELETE',
                          self.target('/stream', account, key, more), None, None, length=False)


class JavaStep:
    """One command unit's log of the delegate. A failed push drops its lines; a failed open is
    only noted, and the lines are sent all the same; no blob is ever uploaded."""

    def __init__(self, client, account, key, interval=0.1, drain=5.0, open_first=True,
                 level='INFO'):
        self.client, self.account, self.key = client, account, key
        self.interval, self.drain = interval / client.speed, drain / client.hurry
        self.open_first, self.level = open_first, level
        self.cache = []
        self.written, self.acked, self.failed, self.errors = [], [], [], []
        self.busy = self.ending = False
        self.ticker = None

    async def open(self):
        if self.open_first:
            try:
                await self.client.open(self.account, self.key)
            except CallFailed as exc:
                self.errors.append(exc)
        self.ticker = asyncio.ensure_future(self.dispatch())

    def write(self, text):
        """One line."""
        self.written.append(text)
        self.cache.append((text, {
            'level': self.level, 'pos': 0, 'out': text, 'time': now_rfc3339(), 'args': None}))

    async def dispatch(self):
        while not self.ending:
            await asyncio.sleep(self.interval)
            await self.push()

    async def push(self):
        if self.busy or not self.cache:
            return
        self.busy = True
        batch, self.cache = self.cache, []
        texts = [text for text, _ in batch]
        data = json.dumps([row for _, row in batch], ensure_ascii=False,
                          separators=(',', ':')).encode('utf-8', 'replace')
        try:
            await self.client.write(self.account, self.key, data)
            self.acked += texts
        except CallFailed as exc:
            self.failed += texts
            self.errors.append(exc)
        finally:
            self.busy = False

    async def close(self, prefix=False):
        """Up to 5 s for the cache to drain, then the close with snapshot."""
        end = time.monotonic() + self.drain
        while (self.cache or self.busy) and time.monotonic() < end:
            await asyncio.sleep(self.interval / 2)
        self.ending = True
        if self.ticker is not None:
            self.ticker.cancel()
        try:
            await self.client.close(self.account, self.key, True, prefix)
        except CallFailed as exc:
            self.errors.append(exc)
        return False

    async def settle(self):
        while self.busy:
            await asyncio.sleep(self.interval / 2)

    async def run(self, lines, rate=None):
        await self.open()
        begun = time.monotonic()
        for count, line in enumerate(lines):
            self.write(line)
            if rate:
                ahead = begun + (count + 1) / rate - time.monotonic()
                if ahead > 0.001:
                    await asyncio.sleep(ahead)
        return await self.close()


ALL = {'legacy': LegacyClient, 'optimized': OptimizedClient, 'goci': GoCIClient,
       'java': JavaDelegateClient}
