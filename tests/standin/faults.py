"""Faults: what to break, for which calls, how often. See README.md for the list of kinds."""
import asyncio
import itertools

from . import logservice
from .web import Gone

KINDS = {'delay', 'stall', 'status', 'reset', 'close', 'execute_lost', 'execute_late',
         'half_then_500', 'ok_on_error', 'wrong_crc', 'snapshot_fail', 'slow_body', 'goaway',
         'rst_stream', 'corrupt', 'refuse', 'interim', 'trickle', 'hold'}
CALLS = {'open', 'lines', 'blob', 'link', 'put-object', 'close', 'exists', 'get-blob',
         'delete-blob', 'get-object', 'download-link', 'download', 'tail', 'token', 'rca', 'info',
         'ws', 'api', 'health', 'other', 'any'}
MATCH = {'call', 'key', 'account', 'method', 'target', 'version', 'token', 'header'}


class Fault:
    """One armed fault. `count` None means always; `skip` lets that many matches pass first."""

    def __init__(self, number, spec):
        unknown = set(spec) - {'match', 'kind', 'count', 'skip', 'args'}
        match = spec.get('match', {})
        if unknown or set(match) - MATCH:
            raise ValueError('unknown field in fault: %s'
                             % ', '.join(sorted(unknown | (set(match) - MATCH))))
        if spec.get('kind') not in KINDS:
            raise ValueError('unknown kind: %s' % spec.get('kind'))
        calls = match.get('call', 'any')
        self.calls = frozenset([calls] if isinstance(calls, str) else calls)
        if self.calls - CALLS:
            raise ValueError('unknown call: %s' % ', '.join(sorted(self.calls - CALLS)))
        self.number, self.kind, self.match = number, spec['kind'], match
        count = spec.get('count', 1)
        self.left = None if count in ('always', None) else int(count)
        self.skip = int(spec.get('skip', 0))
        self.args = dict(spec.get('args', {}))
        self.hits = 0
        self.cleared = asyncio.Event()

    def matches(self, call, params, req):
        if 'any' not in self.calls and call not in self.calls:
            return False
        match = self.match
        if 'key' in match and match['key'] not in params.get('key', params.get('object', '')):
            return False
        if 'account' in match and match['account'] != params.get('accountID', ''):
            return False
        if 'method' in match and match['method'] != req.method:
            return False
        if 'target' in match and match['target'] not in req.target:
            return False
        if 'version' in match and match['version'] != req.version:
            return False
        if 'header' in match and req.get(match['header'].lower()) is None:
            return False
        return 'token' not in match or match['token'] == req.get('x-harness-token')

    def dump(self):
        return {'id': self.number, 'kind': self.kind, 'match': self.match, 'left': self.left,
                'hits': self.hits, 'args': self.args}


class Faults:
    def __init__(self):
        self.armed, self.spent, self.numbers = [], [], itertools.count(1)

    def add(self, spec):
        fault = Fault(next(self.numbers), spec)
        self.armed.append(fault)
        return fault

    def clear(self, number=None):
        for fault in self.armed + self.spent:
            if number in (None, fault.number):
                fault.cleared.set()
        self.armed = [f for f in self.armed if number is not None and f.number != number]

    def pick(self, call, params, req):
        """The first armed fault that matches and whose turn it is; it is charged for it."""
        for fault in self.armed:
            if fault.matches(call, params, req):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                if fault.left is not None:
                    fault.left -= 1
                    if fault.left <= 0:
                        self.armed.remove(fault)
                        self.spent.append(fault)
                return fault
        return None


class Exchange:
    """One request under a fault. `execute(body)` does the work and returns the answer;
    `answer(status, headers, body)` sends it. A kind is a method here."""

    def __init__(self, app, req, call, params, fault, execute, answer):
        self.app, self.req, self.call, self.params = app, req, call, params
        self.fault, self.args = fault, fault.args
        self.execute, self.answer = execute, answer

    async def run(self):
        await getattr(self, 'do_' + self.fault.kind)()

    async def pause(self, default=0):
        seconds = self.args.get('seconds', default)
        if seconds:
            await asyncio.sleep(seconds)

    def drop(self):
        if self.args.get('how', 'rst') == 'fin':
            self.req.close()
        elif self.args.get('how') == 'stream':
            self.req.rst_stream(self.args.get('code', 2))
        else:
            self.req.reset()

    async def normal(self, body=None):
        if body is None:
            body = await self.req.read()
        await self.answer(*self.execute(body))

    async def do_delay(self):
        """Executes `seconds` late, or (where=after) answers that late, or delays the reading."""
        where = self.args.get('where', 'before')
        if where == 'body':
            await self.pause(1)
            await self.normal()
            return
        body = await self.req.read()
        if where == 'before':
            await self.pause(1)
            await self.normal(body)
        else:
            result = self.execute(body)
            await self.pause(1)
            await self.answer(*result)

    async def do_hold(self):
        """Executes, or with where=after answers, once the fault is cleared."""
        body = await self.req.read()
        result = self.execute(body) if self.args.get('where') == 'after' else None
        waits = [asyncio.ensure_future(x) for x in (self.fault.cleared.wait(), self.req.gone())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if not self.fault.cleared.is_set():
            raise Gone()
        await self.answer(*(result or self.execute(body)))

    async def do_stall(self):
        """Never answers; executes only if told so. where=headers: silent within the answer's body."""
        body = await self.req.read()
        if self.args.get('execute'):
            self.execute(body)
        if self.args.get('where') == 'headers':
            await self.req.start(200, (), length=1000)
            await self.req.write(b'{"link": "http')
        await self.req.gone()

    def error_answer(self):
        code = self.args.get('code', 503)
        headers = [(k, str(v)) for k, v in self.args.get('headers', {}).items()]
        if 'retry_after' in self.args:
            headers.append(('Retry-After', str(self.args['retry_after'])))
        if 'body' in self.args:
            body = self.args['body'].encode()
        elif code == 204 or (code == 200 and 'body' not in self.args):
            body = b''
        elif self.call in ('put-object', 'get-object'):
            body = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>Injected</Code></Error>"
            headers.append(('Content-Type', 'application/xml'))
        else:
            _, extra, body = logservice.error(code, 'injected %d' % code)
            headers += extra
        return code, headers, body

    async def do_status(self):
        """Any status; `when` before_body answers at once, after_body (default) reads first. `over`
        spares shorter bodies, `contains` those without that text."""
        if self.args.get('when') == 'before_body':
            await self.pause()
            await self.answer(*self.error_answer())
            return
        body = await self.req.read()
        if len(body) <= self.args.get('over', -1) or \
                self.args.get('contains', '').encode() not in body:
            await self.normal(body)
            return
        await self.pause()
        if self.args.get('execute'):
            self.execute(body)
        await self.answer(*self.error_answer())

    async def do_interim(self):
        """An informational answer first (default 103), then the real one."""
        await self.req.interim(self.args.get('code', 103), [('Link', '</x>; rel=preload')])
        await self.pause()
        await self.normal()

    async def do_reset(self):
        """RST: `where` mid_body (default: once half of it, or `after_bytes`, came), before, after
        (executed; the answer is lost), or mid_answer."""
        where = self.args.get('where', 'mid_body')
        if where == 'mid_body':
            limit = self.args.get('after_bytes', (self.req.length or 0) // 2)
            got = 0
            if limit:
                async for piece in self.req.chunks():
                    got += len(piece)
                    if got >= limit:
                        break
        elif where == 'after':
            self.execute(await self.req.read())
        elif where == 'mid_answer':
            await self.cut_answer()
        await self.pause()
        self.drop()

    async def cut_answer(self):
        status, headers, body = self.execute(await self.req.read())
        await self.req.start(status, headers, length=len(body) + 100)
        await self.req.write(body or b'x')
        await asyncio.sleep(0.02)       # the bytes have to leave before the RST overtakes them

    async def do_close(self):
        """FIN instead of an answer: `where` before (default) or after execution."""
        self.args.setdefault('how', 'fin')
        body = await self.req.read() if self.args.get('where') != 'before_body' else None
        if self.args.get('where') == 'after':
            self.execute(body)
        await self.pause()
        self.drop()

    async def do_execute_lost(self):
        """Executes, then the connection is lost (`how`: rst, fin, stream)."""
        self.execute(await self.req.read())
        await self.pause()
        self.drop()

    async def do_execute_late(self):
        """The connection is lost now, the call is executed `seconds` later."""
        body = await self.req.read()
        self.drop()
        await self.pause(0.5)
        self.execute(body)

    async def do_half_then_500(self):
        """Half of the lines are stored, the answer is 500."""
        body = await self.req.read()
        await self.pause()
        if self.call != 'lines':
            await self.answer(*logservice.error(500, 'injected'))
            return
        await self.answer(*self.app.log.write_half(self.params, body))

    async def do_ok_on_error(self):
        """200 with an empty body and nothing stored, though the stream is there (HP 7a)."""
        body = await self.req.read()
        await self.pause()
        name = self.app.log.name(self.params.get('accountID', ''), self.params.get('key', ''))
        self.app.log.discard(name, self.req, body)
        await self.answer(200, (), b'')

    async def do_wrong_crc(self):
        """The object is stored, the hash in the answer is that of something else."""
        self.params['wrong_crc'] = True
        await self.normal()

    async def do_snapshot_fail(self):
        """A close with a snapshot whose copy fails: 500, and the stream stays."""
        self.app.log.snapshot_fail = True
        try:
            result = self.execute(await self.req.read())
        finally:
            self.app.log.snapshot_fail = False
        await self.answer(*result)

    async def do_slow_body(self):
        """Reads `rate` bytes a second (default 10,000), then goes on as usual."""
        rate, parts, owed = self.args.get('rate', 10000), [], 0.0
        self.req.wire.slow_down()
        async for piece in self.req.chunks():
            parts.append(piece)
            owed += len(piece) / rate
            while owed > 0:
                step = min(owed, 0.25)
                await asyncio.sleep(step)
                owed -= step
        await self.normal(b''.join(parts))

    async def do_goaway(self):
        """HTTP/2 GOAWAY. execute (default): this request is answered, later ones are not taken.
        execute=false: the last stream id is below this one, so it may be repeated safely."""
        req, code = self.req, self.args.get('code', 0)
        if self.args.get('execute', True):
            body = await req.read()
            if req.version != '2':
                status, headers, data = self.execute(body)
                await self.answer(status, list(headers) + [('Connection', 'close')], data)
                return
            req.goaway(None, code)
            await self.normal(body)
            return
        if req.version == '2':
            req.goaway(max(0, req.stream_id - 2), code)
            await asyncio.sleep(0.05)
        req.close()

    async def do_rst_stream(self):
        """HTTP/2 RST_STREAM with `code` (default 2); `execute` before it."""
        body = await self.req.read() if self.args.get('where') != 'before_body' else b''
        if self.args.get('execute'):
            self.execute(body)
        self.req.rst_stream(self.args.get('code', 2))

    async def do_corrupt(self):
        """A broken answer: `mode` protocol (default), body (200 and garbage), truncated, header."""
        mode = self.args.get('mode', 'protocol')
        body = await self.req.read()
        if self.args.get('execute'):
            self.execute(body)
        if mode == 'body':
            await self.answer(self.args.get('code', 200), [('Content-Type', 'application/json')],
                              self.args.get('body', '{"link": \x00garbage').encode())
        elif mode == 'truncated':
            await self.req.start(200, (), length=5000)
            await self.req.write(b'{"link": "http')
            await asyncio.sleep(0.02)
            self.req.close()
        elif mode == 'header':
            size = self.args.get('size', 100000)
            await self.answer(200, [('X-Huge', 'h' * size)], b'')
        else:
            self.req.corrupt()

    async def do_trickle(self):
        """The answer's body comes a byte at a time, `seconds` apart."""
        status, headers, body = self.execute(await self.req.read())
        await self.req.start(status, headers, length=len(body) if status != 204 else None)
        for pos in range(len(body)):
            await asyncio.sleep(self.args.get('seconds', 0.05))
            await self.req.write(body[pos:pos + 1])
        await self.req.finish()


async def apply(exchange):
    """Runs an exchange under its fault; a peer that goes away meanwhile ends it quietly."""
    try:
        await exchange.run()
    except Gone:
        pass
