"""The near side of the demo: many build steps at once, and one delegate that stays connected.

The clients are the stand-ins for the four programs that send logs to Harness (tests/standin): what
they do on the wire, timeouts and retry flaws included, is what the real ones do."""
import asyncio
import json
import random
import ssl
import time

import websockets
from standin.clients import ALL

ACCOUNT = 'demo-account'
PER_CLIENT = 5                  # steps that share one client, as steps of one build machine do
BURST = 0.25                    # seconds between bursts of output
KINDS = ('legacy', 'optimized', 'goci', 'java')


def step_key(number, kind):
    """A key as the platform makes them."""
    return (f'accountId:{ACCOUNT}/orgId:default/projectId:tailrace/pipelineId:build/runSequence:1/'
            f'level0:pipeline/level1:stages/level2:build/level3:spec/level4:execution/level5:steps/'
            f'level6:{kind}_{number:03d}')


class Plan:
    """What one step does: who it is, which of the build's lines it prints, when and how fast."""

    def __init__(self, number, kind, indirect, lines, begin, length):
        self.number, self.kind, self.indirect = number, kind, indirect
        self.lines, self.begin, self.length = lines, begin, length
        self.step = self.state = None

    @property
    def route(self):
        """Where the finished log goes."""
        if self.kind == 'java':
            return 'snapshot'
        return 'harness' if self.indirect else 'store'


def make_plans(text, count, seconds, seed=1):
    """`count` steps within `seconds`; each prints a part of the build's output, from a place of its own."""
    rng = random.Random(seed)
    plans = []
    for number in range(count):
        begin = rng.uniform(0, seconds * 0.4)
        length = rng.uniform(seconds * 0.3, seconds - begin)
        size = int(length * rng.uniform(8, 32))
        first = rng.randrange(len(text))
        lines = [text[(first + i) % len(text)] for i in range(size)]
        plans.append(Plan(number, KINDS[number % 4], number // 4 % 2 == 0, lines, begin, length))
    return plans


class Fleet:
    """All steps of the demo. Counts are cheap to read while it runs."""

    def __init__(self, plans, log_url, ca):
        self.plans, self.clients = plans, []
        self.done = 0
        shared = {}
        for plan in plans:
            kind = (plan.kind, plan.indirect)
            client, used = shared.get(kind, (None, PER_CLIENT))
            if used == PER_CLIENT:
                client, used = ALL[plan.kind](log_url, 'demo-token-' + plan.kind, ca=ca,
                                              indirect=plan.indirect), 0
                self.clients.append(client)
            shared[kind] = (client, used + 1)
            plan.step = client.step(ACCOUNT, step_key(plan.number, plan.kind))
            plan.state = 'waiting'

    async def run(self):
        await asyncio.gather(*(self.drive(plan) for plan in self.plans))
        for plan in self.plans:
            await plan.step.settle()

    async def drive(self, plan):
        """One step, whose output comes in bursts, as a build's does."""
        await asyncio.sleep(plan.begin)
        step, lines = plan.step, plan.lines
        plan.state = 'running'
        begun = time.monotonic()
        if plan.kind == 'java':
            await step.open()
        else:
            step.start()
        sent = 0
        while sent < len(lines):
            share = min(1, (time.monotonic() - begun) / plan.length)
            upto = max(sent + 1, int(share * len(lines)))
            for line in lines[sent:upto]:
                step.write(line)
            sent = upto
            await asyncio.sleep(BURST * random.uniform(0.5, 1.5))
        await step.close()
        plan.state = 'done'
        self.done += 1

    @property
    def lines_in(self):
        return sum(len(plan.step.written) for plan in self.plans)

    @property
    def acked(self):
        return sum(len(plan.step.acked) for plan in self.plans)

    @property
    def running(self):
        return sum(plan.state == 'running' for plan in self.plans)

    def calls(self, *kinds):
        """Every call the clients made, oldest first."""
        found = [r for client in self.clients for r in client.records if not kinds or r.call in kinds]
        return sorted(found, key=lambda record: record.at)

    def close(self):
        for client in self.clients:
            client.close_connections()


class Delegate:
    """A delegate's WebSocket with its heartbeats. One that is cut off connects again, and says so."""

    def __init__(self, url, ca, every=1.0):
        self.url = (url.replace('http', 'ws', 1) + f'/gratis/stream/delegate/{ACCOUNT}'
                    '?delegateId=demo-delegate&token=demo-token-java&version=demo')
        self.context = ssl.create_default_context(cafile=ca)
        self.every = every
        self.connections = self.sent = self.answered = self.events = 0
        self.open = False
        self.longest = self.since = 0.0
        self.last_error = None
        self.task = None

    def start(self):
        self.task = asyncio.ensure_future(self.live())

    async def stop(self):
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.lost()

    def lost(self):
        if self.open:
            self.open = False
            self.longest = max(self.longest, time.monotonic() - self.since)

    async def live(self):
        while True:
            try:
                await self.session()
            except (OSError, websockets.WebSocketException, asyncio.TimeoutError) as exc:
                self.last_error = type(exc).__name__
            self.lost()
            await asyncio.sleep(0.5)

    async def session(self):
        headers = {'accountId': ACCOUNT, 'delegateId': 'demo-delegate', 'User-Agent': 'delegate/demo'}
        async with websockets.connect(self.url, ssl=self.context, extra_headers=headers, compression=None,
                                      ping_interval=None, open_timeout=10, close_timeout=1) as sock:
            self.connections += 1
            self.open, self.since = True, time.monotonic()
            beats = asyncio.ensure_future(self.beat(sock))
            try:
                async for text in sock:
                    self.take(text)
            finally:
                beats.cancel()

    async def beat(self, sock):
        while True:
            await sock.send(json.dumps({'delegateId': 'demo-delegate', 'accountId': ACCOUNT,
                                        'lastHeartBeat': int(time.time() * 1000)}))
            self.sent += 1
            await asyncio.sleep(self.every)

    def take(self, text):
        if 'DelegateHeartbeatResponseStreaming' in text:
            self.answered += 1
        else:
            self.events += 1
